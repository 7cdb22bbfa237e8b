"""What has changed between two readings of the settings, said setting by setting."""

from collections.abc import Iterator

from ingest.listener.dialer import Dial
from ingest.service.settings import AT_START, Settings, option_name


def changes(old: Settings, new: Settings) -> Iterator[str]:
    """Say what has changed, and whether it counts now or after a restart."""
    before, after = old.as_written(), new.as_written()
    for name, value in after.items():
        if value != before[name] and name != "dial":
            when = "after a restart" if name in AT_START else "from now on"
            yield f"{option_name(name)}: {before[name]} becomes {value} {when}"
    yield from _dial_changes(_by_device(old), _by_device(new))


def _by_device(settings: Settings) -> dict[str, Dial]:
    return {dial.question.device: dial for dial in settings.dial}


def _dial_changes(before: dict[str, Dial], after: dict[str, Dial]) -> Iterator[str]:
    for device in before.keys() - after.keys():
        yield f"dial: {device} is called no more from now on"
    for device, dial in after.items():
        if dial != before.get(device):
            yield f"dial: {dial} from now on"
