"""A tail as server-sent events, on a clock of its own."""

import time
from typing import Any, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.test.requesthelper import DummyRequest

from ingest.layout import Layout
from ingest.log.places import Place
from ingest.watch.stream import Stream
from ingest.watch.tailing import Tail
from tests.watch.pages import write_log


class _Request(DummyRequest):  # type: ignore[misc, unused-ignore]
    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Twisted's own would ask the producer for more without end."""


class Watched:
    """A stream to a browser that a test plays."""

    def __init__(self, layout: Layout, place: Place | None = None, device: str = "") -> None:
        self.clock = Clock()
        self.request = _Request([b""])
        tail = Tail(layout, device, "", place=place, count=10)
        self.stream = Stream(cast(Any, self.request), tail, self.clock, maybeDeferred)
        self.stream.start()

    def end(self) -> None:
        """Let the browser go away."""
        self.request.processingFailed(Failure(ConnectionDone()))

    def written(self) -> str:
        """Return what was written since the last call."""
        found = b"".join(self.request.written).decode()
        self.request.written.clear()
        return found


def write(layout: Layout, *numbers: int) -> None:
    write_log(layout, ((time.time(), "a", each, f'"text":"{each}"') for each in numbers))


def test_a_comment_comes_every_15_seconds(layout: Layout) -> None:
    write(layout, 1)
    watched = Watched(layout)
    watched.clock.pump([0.1] * 149)
    assert ": still here" not in watched.written()
    watched.clock.pump([0.1] * 2)
    assert watched.written() == ": still here\n\n"
    watched.clock.pump([0.1] * 150)
    assert watched.written() == ": still here\n\n"
    watched.end()


def test_lines_come_once_and_from_their_place_on(layout: Layout) -> None:
    write(layout, 1, 2)
    watched = Watched(layout)
    first = watched.written()
    assert first.count('\\"seq\\":') == 2
    write(layout, 3)
    watched.clock.pump([0.1] * 5)
    second = watched.written()
    assert second.count('\\"seq\\":') == 1
    assert '\\"seq\\":3' in second
    place = next(line[4:] for line in first.splitlines() if line.startswith("id: "))
    again = Watched(layout, Place.from_json(place))
    assert '\\"seq\\":3' in again.written()
    watched.end()
    again.end()


def test_nothing_is_read_while_the_browser_takes_nothing(layout: Layout) -> None:
    write(layout, 1)
    watched = Watched(layout)
    watched.written()
    watched.stream.pauseProducing()
    write(layout, 2, 3)
    watched.clock.pump([1.0] * 40)
    assert watched.written() == "", "not even a comment"
    watched.stream.resumeProducing()
    assert watched.written().count('\\"seq\\":') == 2
    watched.end()


def test_it_ends_when_the_browser_goes_away(layout: Layout) -> None:
    write(layout, 1)
    watched = Watched(layout)
    watched.end()
    assert watched.clock.getDelayedCalls() == []


def test_trouble_is_said_and_tried_again(layout: Layout) -> None:
    write(layout, 1)
    watched = Watched(layout)
    watched.written()
    (layout.log_folder / "ingest.log").unlink()
    layout.log_folder.rmdir()
    watched.clock.pump([0.1] * 4)
    assert "event: trouble" in watched.written()
    layout.create()
    write(layout, 5)
    watched.clock.pump([0.5] * 6)
    assert '\\"seq\\":5' in watched.written()
    watched.end()
