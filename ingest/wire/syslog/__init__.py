"""Syslog over TCP and TLS, and RELP: framings and messages."""
