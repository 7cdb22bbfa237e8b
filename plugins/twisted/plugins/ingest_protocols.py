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

syslog = ProtocolMaker(
    "syslog",
    "syslog over TCP or TLS, RFC 5424 and RFC 3164: see PROTOCOLS.md",
    "ingest.wire.syslog.framing",
)

relp = ProtocolMaker(
    "relp",
    "syslog whose messages are acknowledged, by RELP: see PROTOCOLS.md",
    "ingest.wire.syslog.relp",
)
