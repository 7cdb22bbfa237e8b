"""For MicroPython: let every operation of the queue on its files fail in turn, and look.

    micropython queue_faults.py FOLDER-OF-THE-CLIENT FOLDER

Once the program ends there, half of a write done; once the medium is full there, and the program
goes on, for ever or up to one of the next operations. The queue must hold what it took, whole and
in order, and know the number of the oldest.
"""

import builtins
import os
import sys

sys.path.insert(0, sys.argv[1])
import ingest_device  # type: ignore[import-not-found]

PATH = sys.argv[2] + "/queue"
NO_SPACE = 28  # ENOSPC, which the errno of MicroPython leaves out
LIMIT, FRAMES, REFUSED, FIRST = 80, 36, 12, 1000


class CrashError(Exception):
    """The program ends here."""


class Faults:
    """Counts operations down, and fails at the end."""

    left = 0
    error: Exception = CrashError()

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
        self._file = builtins.open(path, mode)
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
        os.rename(old, new)

    @staticmethod
    def remove(path: str) -> None:
        if path.rsplit("/", 1)[1] in os.listdir(sys.argv[2]):
            faults.tick()
        os.remove(path)


ingest_device.open = File
ingest_device.os = Os


def frame(number: int, short: bool) -> bytes:
    return b"%d:" % number + b"x" * (0 if short else 3 + number % 9)


class Model:
    """What the queue should know: frames from `head` up to `taken`, of which one was refused."""

    head = taken = 0
    is_numbered = has_refused = has_failed = False

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.tried: list[bytes] = []  # what was pushed since, and may have been taken at a crash

    def check(self, queue: "ingest_device.Queue") -> None:
        """Compare; after a crash the queue may still hold what the listener had already."""
        content = b""
        while chunk := queue.read(len(content)):
            content += chunk
        lines = content.split(b"\n")[:-1]
        if queue.taken == self.taken + 1 and lines[-1] in self.tried:
            self.take(lines[-1])
        assert queue.taken == self.taken, (queue.taken, self.taken)
        begin = self.taken - len(lines)
        assert queue.count == len(lines) and begin <= self.head, (begin, self.head)
        assert lines == self.frames[begin:], lines
        if queue.first:
            lag = begin > REFUSED  # the refused one has used up no number
            assert queue.first == FIRST + begin - lag, (queue.first, begin)
            assert lag or not self.has_refused, "the refused one is back"
        else:
            assert not self.is_numbered
        self.head = begin

    def take(self, taken: bytes) -> None:
        """Note that a frame is in the queue."""
        self.frames.append(taken)
        self.taken += 1
        self.tried.clear()


def work(queue: "ingest_device.Queue", model: Model) -> None:
    """Push all frames; drop some where there is no room, as acknowledgements do."""
    if not queue.first:
        queue.start_from(FIRST)
    model.is_numbered = True
    while model.taken < FRAMES:
        # What failed is not pushed again: the next is another one, and shorter.
        model.tried.append(frame(model.taken, model.has_failed))
        if queue.push(model.tried[-1]):
            model.take(model.tried[-1])
        elif model.head <= REFUSED < model.head + 2:
            queue.drop(REFUSED - model.head)
            model.head = REFUSED
            model.check(queue)
            queue.set_aside()
            model.head, model.has_refused = REFUSED + 1, True
        else:
            queue.drop(2)
            model.head += 2


def clear() -> None:
    for name in os.listdir(sys.argv[2]):
        os.remove(sys.argv[2] + "/" + name)


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
        except CrashError:
            reached = model.has_failed = True
            queue = ingest_device.Queue(PATH, LIMIT)
            model.check(queue)
        except OSError as failure:
            assert failure.errno == NO_SPACE, failure
            reached = model.has_failed = True
            faults.left, faults.error = then, CrashError()


for kind, ends in ((CrashError(), (0,)), (OSError(NO_SPACE), (0, 1, 2, 3, 5, 8))):
    number = 1
    while all(run(kind, number, end) for end in ends):
        number += 1
    print(number - 1, "operations failed, one at a time")
