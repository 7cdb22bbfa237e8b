"""A device for the test that kills it: it sends numbered frames, and keeps a diary.

    python -m tests.client.device SHELL DIALECT PORT NAME SPOOL DIARY ENDING

The diary has `try FIRST LAST` before frames are given to the client, `took FIRST LAST` after it
has taken them, and each event that tells of a loss. It is the only file that the device's own
disk does not hold. When the file ENDING is there, the device waits for the last acknowledgement
and ends.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from ingest.client import AsyncClient, Client, Connected, Disconnected, Event
from tests.support.devices import TOKEN

SPOOL_SIZE = 1 << 20
_FILLER = "x" * 3000


def frame(dialect: str, number: int) -> Any:
    """Make a device's frame of this number; some are long."""
    text = f"{number} {_FILLER[: number * 7919 % (3000 if number % 16 == 0 else 100)]}"
    return text if dialect == "text" else {"n": text}


class Diary:
    """What a device has tried and done, over all its lives."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def note(self, event: Event) -> None:
        """Write down an event, if it is one that must not happen."""
        if not isinstance(event, (Connected, Disconnected)):
            self.write("event", event)


def last_tried(path: Path) -> int:
    """Return the number of the last frame that an earlier life may have sent."""
    tried = [line.split()[2] for line in path.read_text().splitlines() if line.startswith("try ")]
    return int(tried[-1]) if tried else 0


def batches(dialect: str, diary: Diary, done: int, ending: Path) -> Any:
    """Give lists of frames to send, until it is time to end."""
    while not ending.exists():
        first, last = done + 1, done + random.choice([1, 1, 2, 50])
        diary.write("try", first, last)
        yield [frame(dialect, number) for number in range(first, last + 1)]
        diary.write("took", first, last)
        done = last
        time.sleep(random.uniform(0, 0.01))  # the logs of a long run must not fill their disk


def main() -> None:
    """Be a device."""
    shell, dialect, port, name, spool, diary_path, ending = sys.argv[1:]
    diary = Diary(Path(diary_path))
    options: dict[str, Any] = {
        "dialect": dialect,
        "spool": spool,
        "spool_size": SPOOL_SIZE,
        "pause": (0.02, 0.2),
        "on_event": diary.note,
    }
    work = batches(dialect, diary, last_tried(Path(diary_path)), Path(ending))
    if shell == "asyncio":
        return asyncio.run(_send(AsyncClient("127.0.0.1", int(port), name, TOKEN, **options), work))
    with Client("127.0.0.1", int(port), name, TOKEN, **options) as client:
        for frames in work:
            client.send_many(frames)
    return None


async def _send(client: AsyncClient, work: Any) -> None:
    async with client:
        for frames in work:
            await client.send_many(frames)


if __name__ == "__main__":
    main()
