"""The load that `ingest bench` puts on a listener, and what it measures."""
