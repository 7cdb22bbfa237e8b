from twisted.application.service import ServiceMaker

ingest = ServiceMaker(
    "ingest",
    "ingest.service.tap",
    "Collect authenticated frames from a fleet of devices in a rotating log.",
    "ingest",
)
