"""The listener that a fleet of devices pushes to."""
