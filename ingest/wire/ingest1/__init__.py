"""`ingest/1`, the protocol of PROTOCOL.md: its conversation and its two dialects."""
