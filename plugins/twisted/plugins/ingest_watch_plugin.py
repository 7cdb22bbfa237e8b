from twisted.application.service import ServiceMaker

ingest_watch = ServiceMaker(
    "ingest-watch",
    "ingest.watch.tap",
    "Show what the listener collects: a page with health, devices, curves and the log.",
    "ingest-watch",
)
