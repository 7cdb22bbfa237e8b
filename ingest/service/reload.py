"""What has changed between two readings of the settings, said setting by setting."""

from collections.abc import Iterator

from ingest.service.settings import AT_START, Settings, option_name


def changes(old: Settings, new: Settings) -> Iterator[str]:
    """Say what has changed, and whether it counts now or after a restart."""
    before, after = old.as_written(), new.as_written()
    for name, value in after.items():
        if value != before[name]:
            when = "after a restart" if name in AT_START else "from now on"
            yield f"{option_name(name)}: {before[name]} becomes {value} {when}"
