"""The tables of the registry."""

APPLICATION_ID = 0x696E6764
"""Tells a registry from another SQLite file: "ingd"."""

SCHEMA_VERSION = 1

# A device is about 170 bytes, found by name: without rowids the name's index is the table.
# `tally` is there because SQLite counts rows by reading them all.
# Revocations are kept for an hour, far longer than a listener takes to look again; each new one
# takes away up to two older, so the table shrinks after a burst and no insert is slow.
SCHEMA = (
    """
    CREATE TABLE devices (
        name TEXT PRIMARY KEY,
        enabled INTEGER NOT NULL,
        created TEXT NOT NULL,
        note TEXT NOT NULL,
        salt BLOB NOT NULL,
        iterations INTEGER NOT NULL,
        stored_key BLOB NOT NULL,
        server_key BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE seen (
        device TEXT PRIMARY KEY,
        time TEXT NOT NULL,
        peer TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE revocations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        device TEXT NOT NULL,
        time INTEGER NOT NULL DEFAULT (strftime('%s', 'now') + 0)
    )
    """,
    "CREATE TABLE tally (devices INTEGER NOT NULL)",
    "INSERT INTO tally VALUES (0)",
    """
    CREATE TRIGGER device_added AFTER INSERT ON devices BEGIN
        UPDATE tally SET devices = devices + 1;
    END
    """,
    """
    CREATE TRIGGER device_removed AFTER DELETE ON devices BEGIN
        UPDATE tally SET devices = devices - 1;
        DELETE FROM seen WHERE device = OLD.name;
        INSERT INTO revocations (device) VALUES (OLD.name);
    END
    """,
    """
    CREATE TRIGGER device_disabled AFTER UPDATE OF enabled ON devices
    WHEN OLD.enabled AND NOT NEW.enabled BEGIN
        INSERT INTO revocations (device) VALUES (OLD.name);
    END
    """,
    """
    CREATE TRIGGER token_replaced AFTER UPDATE OF stored_key ON devices
    WHEN OLD.stored_key <> NEW.stored_key BEGIN
        INSERT INTO revocations (device) VALUES (OLD.name);
    END
    """,
    """
    CREATE TRIGGER revocations_pruned AFTER INSERT ON revocations BEGIN
        DELETE FROM revocations
        WHERE id IN (SELECT id FROM revocations ORDER BY id LIMIT 2) AND time < NEW.time - 3600;
    END
    """,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

# What format 1 got later. An older ingest takes no notice of it, so the format keeps its number.
# `revision` differs whenever the devices differ, so that a file that somebody has overwritten can
# be told from one that has changed in good order. `decoys` is the key of `verifier.decoy`.
LATER = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('decoys', randomblob(32)), ('revision', randomblob(8))",
    *(
        f"""
        CREATE TRIGGER revised_by_{event.split()[0].lower()} AFTER {event} ON devices BEGIN
            UPDATE meta SET value = randomblob(8) WHERE name = 'revision';
        END
        """
        for event in ("INSERT", "DELETE", "UPDATE OF enabled, stored_key")
    ),
)

# A table of its own, so that an older ingest, which copies rows of `devices` whole, still can.
FORMATS = (
    "CREATE TABLE formats (device TEXT PRIMARY KEY, format TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TRIGGER format_forgotten AFTER DELETE ON devices BEGIN
        DELETE FROM formats WHERE device = OLD.name;
    END
    """,
)

ADDITIONS = (("meta", LATER), ("formats", FORMATS))
"""What format 1 got later: a table that tells whether it is there, and what makes it."""

_FIELDS = "enabled, created, note, salt, iterations, stored_key, server_key"
_THEIRS = ", ".join(f"theirs.{field}" for field in _FIELDS.split(", "))

# What makes the devices those of the attached database `source`. A row that is the same in both is
# left alone: the triggers must fire for those that differ, and only for them.
BECOME = (
    "DELETE FROM main.devices WHERE name NOT IN (SELECT name FROM source.devices)",
    f"""
        UPDATE main.devices SET ({_FIELDS}) = ({_THEIRS}) FROM source.devices AS theirs
        WHERE theirs.name = devices.name
        AND (devices.enabled, devices.created, devices.note, devices.stored_key)
            IS NOT (theirs.enabled, theirs.created, theirs.note, theirs.stored_key)
    """,
    """
        INSERT INTO main.devices SELECT * FROM source.devices
        WHERE name NOT IN (SELECT name FROM main.devices)
    """,
    "INSERT OR IGNORE INTO main.seen SELECT * FROM source.seen",
    "DELETE FROM main.formats WHERE device NOT IN (SELECT device FROM source.formats)",
    "INSERT OR REPLACE INTO main.formats SELECT * FROM source.formats",
    "INSERT OR REPLACE INTO main.meta SELECT * FROM source.meta WHERE name = 'decoys'",
)
