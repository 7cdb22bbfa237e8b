"""The wire, `ingest/1`: bytes in, events and bytes out. No Twisted, no clock, no files."""
