"""Rules and records that tests write in few words."""

from pathlib import Path

from ingest.watch.rules.engine import Engine
from ingest.watch.rules.model import Rules
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.phases import Event
from ingest.watch.rules.rulesfile import read_rules
from tests.log.logs import BEGIN, line

START = int(BEGIN.timestamp()) * SECOND


def rules(folder: Path, text: str) -> Rules:
    """Read rules from a text."""
    path = folder / "rules.toml"
    path.write_text(text)
    return read_rules(path)


def engine(folder: Path, text: str) -> Engine:
    """An engine of the rules in a text."""
    return Engine(rules(folder, text).rules)


class Sender:
    """Numbers the records of devices; times are seconds after the log's begin."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, at: float, text: str, device: str = "a", skip: int = 0) -> bytes:
        number = self._numbers[device] = self._numbers.get(device, 0) + 1 + skip
        return line(number, f'"text":"{text}"', device, at) + b"\n"


def told(events: list[Event]) -> list[tuple[str, str, str, float]]:
    """What events say: rule, device, what happened, and seconds after the log's begin."""
    return [
        (each.rule, each.device, "fires" if each.firing else "clears",
         (each.time - START) / SECOND)
        for each in events
    ]  # fmt: skip
