"""Who may connect: the registry of devices and what it keeps of their tokens. No Twisted."""
