"""The log as a reader sees it: its files, places in them, reading, following and verifying."""
