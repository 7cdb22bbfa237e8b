from ingest.listener.protocols import ProtocolMaker

ingest_1 = ProtocolMaker(
    "ingest/1",
    "lines of text or msgpack objects, authenticated and acknowledged: see PROTOCOL.md",
    "ingest.wire.ingest1.session",
)

forward = ProtocolMaker(
    "forward",
    "Fluent Forward v1, as Fluentd and Fluent Bit speak it: see PROTOCOLS.md",
    "ingest.wire.forward.session",
)
