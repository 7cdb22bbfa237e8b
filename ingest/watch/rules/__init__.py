"""Rules: what must hold over the log, and who is told when it does not."""
