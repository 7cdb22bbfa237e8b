"""The Twisted shell: sockets, timers, limits and the service tree around the wire and journal."""
