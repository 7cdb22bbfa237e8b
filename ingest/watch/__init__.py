"""The watcher's rooms: what people see of the log, ask of it and let it decide. It only reads."""
