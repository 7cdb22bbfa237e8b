from twisted.application.service import ServiceMaker

ingest = ServiceMaker(
    "ingest",
    "ingest.listener.tap",
    "Collect authenticated frames from a fleet of devices in a rotating log.",
    "ingest",
)
