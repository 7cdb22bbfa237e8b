"""The listener as a service of twistd: its settings, its parts and its process."""
