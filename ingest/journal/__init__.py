"""Where records are kept, in order and durably, and how they are read back. No Twisted."""
