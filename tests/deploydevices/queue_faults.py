"""For MicroPython: let every operation of the queue on its files fail in turn, and look.

    micropython queue_faults.py FOLDER-OF-THE-CLIENT FOLDER

Once the program ends there, half of a write done; once the medium is full there, and the program
goes on, for ever or up to one of the next operations. The queue must hold what it took, whole and in order, and know the number of the oldest.
"""

import builtins
import os
import sys

sys.path.insert(0, sys.argv[1])
import ingest_device

PATH = sys.argv[2] + "/queue"
NO_SPACE = 28  # ENOSPC, which the errno of MicroPython leaves out
LIMIT, FRAMES, REFUSED, FIRST = 120, 60, 20, 1000


class Crash(Exception):
    """The program ends here."""


class Faults:
    """Counts operations down, and fails at the end."""

    left = 0
    error: Exception = Crash()

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


faults = Faults()


class File:
    """A file whose changes may fail."""

    def __init__(self, path: str, mode: str = "r") -> None:
        if mode[0] != "r":
            faults.tick()
        self._file = builtins.open(path, mode)  # noqa: PTH, SIM115
        for name in ("read", "seek", "close"):
            setattr(self, name, getattr(self._file, name))

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        try:
            faults.tick()
        except Exception:
            self._file.write(data[: len(data) // 2])
            raise
        self._file.write(data)

    def flush(self) -> None:
        faults.tick()  # without the disk's part of it, which takes its time


class Os:
    """Changes of names that may fail."""

    @staticmethod
    def rename(old: str, new: str) -> None:
        faults.tick()
        os.rename(old, new)  # noqa: PTH

    @staticmethod
    def remove(path: str) -> None:
        if path.rsplit("/", 1)[1] in os.listdir(sys.argv[2]):  # noqa: PTH
            faults.tick()
        os.remove(path)  # noqa: PTH


ingest_device.open = File
ingest_device.os = Os


def frame(number: int) -> bytes:
    return b"%d:" % number + b"x" * (number % 9)


class Model:
    """What the queue should know: frames from `head` up to `taken`, of which one was refused."""

    head = taken = 0
    attempt = False
    numbered = False
    refused = REFUSED + 1  # where the numbers lag by one; nothing is before it was refused

    def check(self, queue: "ingest_device.Queue") -> None:
        """Compare; after a crash the queue may still hold what the listener had already."""
        if self.attempt and queue.taken == self.taken + 1:
            self.taken += 1
        assert queue.taken == self.taken, (queue.taken, self.taken)
        content = b""
        while chunk := queue.read(len(content)):
            content += chunk
        lines = content.split(b"\n")[:-1]
        begin = self.taken - len(lines)
        assert queue.count == len(lines) and begin <= self.head, (begin, self.head)
        assert lines == [frame(number) for number in range(begin, self.taken)], lines
        if queue.first:
            lag = begin > REFUSED
            assert queue.first == FIRST + begin - lag, (queue.first, begin)
        else:
            assert not self.numbered
        self.head, self.attempt = begin, False


def work(queue: "ingest_device.Queue", model: Model) -> None:
    """Push all frames; drop some where there is no room, as acknowledgements do."""
    if not queue.first:
        queue.start_from(FIRST)
    model.numbered = True
    while model.taken < FRAMES:
        model.attempt = True
        if queue.push(frame(model.taken)):
            model.taken += 1
        elif model.head <= REFUSED < model.head + 2:
            queue.drop(REFUSED - model.head)
            model.head = REFUSED
            model.attempt = False
            model.check(queue)
            queue.set_aside()
            model.head += 1
        else:
            queue.drop(2)
            model.head += 2
        model.attempt = False


def clear() -> None:
    for name in os.listdir(sys.argv[2]):  # noqa: PTH
        os.remove(sys.argv[2] + "/" + name)  # noqa: PTH


def run(error: Exception, at: int, then: int) -> bool:
    """Let operation number `at` fail; return whether there were so many.

    Args:
        error: how it fails.
        at: which one, counted from 1.
        then: after how many more operations the program ends; 0: it does not.
    """
    clear()
    model, queue, reached = Model(), None, False
    faults.left, faults.error = at, error
    while True:
        try:
            queue = queue or ingest_device.Queue(PATH, LIMIT)
            work(queue, model)
            model.check(queue)
            model.check(ingest_device.Queue(PATH, LIMIT))
            return reached
        except Crash:
            reached = True
            queue = ingest_device.Queue(PATH, LIMIT)
            model.check(queue)
        except OSError as failure:
            assert failure.errno == NO_SPACE, failure
            reached = True
            faults.left, faults.error = then, Crash()


for kind, ends in ((Crash(), (0,)), (OSError(NO_SPACE), range(20))):
    number = 1
    while [run(kind, number, end) for end in ends][0]:
        number += 1
    print(number - 1, "operations failed, one at a time")
