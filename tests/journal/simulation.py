"""Histories of a journal in one thread, on one clock: who acts next is a matter of chance.

The journal is the real one, stepped by hand, on real files; its disk falls short, fails and kills
it at any of its calls, as chance has it. `python -m tests.journal.simulation 10000` runs as many
histories, and prints the seed of one that breaks a promise.
"""

import errno
import os
import random
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingest.journal.disk import Disk
from ingest.journal.events import Event, HolderFailed
from ingest.journal.file import FileJournal, JournalPolicy
from ingest.journal.interface import Lease
from ingest.journal.rotation import RotationPolicy
from ingest.journal.writer import Wait
from ingest.layout import Layout
from tests.journal.disks import Clocks
from tests.log.logs import BEGIN, line

DEVICES = ("a", "b", "c")
_STEPS = 120
_RECORD = re.compile(rb'\{"time":"[^"]*","device":"([abc])","seq":(\d+),"text":"x+"\}')
_ERRORS = {
    "writev": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "pwritev": (errno.ENOSPC, errno.EIO),
    "fdatasync": (errno.EIO, errno.ENOSPC),
    "fallocate": (errno.EROFS,),
    "open": (errno.EMFILE, errno.ENOSPC),
    "open_folder": (errno.EMFILE,),
    "rename": (errno.EROFS, errno.EACCES),
    "fsync": (errno.EIO,),
    "ftruncate": (errno.EIO,),
}


class Killed(BaseException):
    """The process is no more; nothing of it may act on this."""


class ChanceDisk(Disk):
    """The real disk, without its syncs, and with its faults as chance has them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._opened: set[int] = set()
        self.fault_rate = 0.0
        self.kill_rate = 0.0
        self.syncs_fail = True

    def __getattribute__(self, name: str) -> Any:
        call = object.__getattribute__(self, name)
        return self._by_chance(name, call) if name in _ERRORS else call

    def _by_chance(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            is_spared = name in ("fdatasync", "fallocate") and not self.syncs_fail
            if self._chance.random() < self.fault_rate and not is_spared:
                number = self._chance.choice(_ERRORS[name])
                raise OSError(number, os.strerror(number))
            is_killed = self._chance.random() < self.kill_rate
            result: int | None
            if name in ("writev", "pwritev") and (is_killed or self._chance.random() < 0.2):
                result = self._fall_short(call, *arguments)
            elif is_killed and self._chance.random() < 0.5:
                raise Killed
            else:
                result = call(*arguments) if name not in ("fdatasync", "fsync") else None
            if name in ("open", "open_folder"):
                assert result is not None
                self._opened.add(result)
            if is_killed:
                raise Killed
            return result

        return act

    def _fall_short(
        self, call: Callable[..., int], fd: int, blocks: Sequence[bytes], *rest: int
    ) -> int:
        data = b"".join(blocks)
        return call(fd, [data[: self._chance.randint(min(1, len(data)), len(data))]], *rest)

    def close(self, fd: int) -> None:
        self._opened.discard(fd)
        os.close(fd)

    def close_all(self) -> None:
        """Do as the end of a process does."""
        while self._opened:
            os.close(self._opened.pop())


class Sender:
    """A device that brings records while it holds its lease."""

    def __init__(self, history: "History", device: str) -> None:
        self._history = history
        self.number = history.count()
        self.device = device
        self.lease: Lease | None = None
        self.is_fenced = False

    def granted(self, lease: Lease) -> None:
        """See `Holder.granted`; what was acknowledged is never forgotten."""
        history = self._history
        assert lease.last >= history.acknowledged[self.device], "an acknowledged record is gone"
        assert lease.last >= lease.first - 1
        self.lease = lease

    def refused(self, reason: str) -> None:
        """See `Holder.refused`."""
        raise AssertionError(reason)

    def fenced(self) -> None:
        """See `Holder.fenced`; it is acted on later."""
        self.is_fenced = True

    def durable(self, seq: int) -> None:
        """See `Holder.durable`."""
        assert self.lease is not None and seq > self._history.acknowledged[self.device]
        self._history.acknowledged[self.device] = seq
        if self._history.chance.random() < 0.01:
            raise ArithmeticError("a connection that fails")

    def abort(self) -> None:
        """See `Holder.abort`."""
        self._history.senders.discard(self)

    def bring(self) -> None:
        """Append some records."""
        assert self.lease is not None
        count, size = self._history.chance.randint(1, 5), self._history.chance.randint(1, 200)
        text = '"text":"%s"' % ("x" * size)
        first = self.lease.last + 1
        now = self._history.clocks.wall - BEGIN.timestamp()
        block = b"".join(
            line(seq, text, self.device, now) + b"\n" for seq in range(first, first + count)
        )
        self._history.journal.append(self.lease, block, count)


class History:
    """One history: senders, a journal that is killed and started again, and what they promised."""

    def __init__(self, data: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clocks = Clocks()
        self.acknowledged = dict.fromkeys(DEVICES, 0)
        self.senders: set[Sender] = set()
        self.events: list[Event] = []
        self.kills = 0
        self._senders = 0
        self._disk = ChanceDisk(self.chance)
        self._layout = Layout(data)
        self._layout.create()
        # A file that another program has moved is put in order by the time of its first record,
        # which tells little beside files that we have closed, and nothing when the clock is set.
        # So in histories with such files we close none, not even one that could not be synced.
        self._is_moved = self.chance.random() < 0.3
        self._disk.syncs_fail = not self._is_moved
        rotation = RotationPolicy(self.chance.choice([0, 500, 5000]), self.chance.choice([0, 60]))
        self._policy = JournalPolicy(RotationPolicy() if self._is_moved else rotation)
        self._answers: deque[tuple[Any, ...]] = deque()
        self._is_paused = False
        self._start()

    def pause(self) -> None:
        """See `FlowControl.pause`."""
        self._is_paused = True

    def resume(self) -> None:
        """See `FlowControl.resume`."""
        self._is_paused = False

    def count(self) -> int:
        """Number the senders."""
        self._senders += 1
        return self._senders

    def run(self) -> None:
        """Live through it, and check what is left.

        Raises:
            AssertionError: a promise is broken.
        """
        acts = [self._claim, self._bring, self._bring, self._step, self._step, self._answer]
        acts += [self._answer, self._yield_lease, self._pass_time, self._other]
        for _ in range(_STEPS):
            with self._killed():
                self.chance.choice(acts)()
        with self._killed():
            self._finish()
        self._check()

    def _start(self) -> None:
        self._disk.fault_rate = self._disk.kill_rate = 0.0
        self._is_paused = False
        self._wait = Wait(0)
        self.journal = FileJournal(
            self._layout,
            self._policy,
            lambda *call: self._answers.append(call),
            self,
            self.events.append,
            disk=self._disk,
            clock=self.clocks.clock,
        )
        self._disk.fault_rate = self.chance.choice([0, 0, 0.02, 0.3])
        self._disk.kill_rate = self.chance.choice([0, 0.01, 0.05])

    @contextmanager
    def _killed(self) -> Iterator[None]:
        """Start again if the process is killed meanwhile; what it was about to say is lost."""
        try:
            yield
        except Killed:
            self.kills += 1
            self._answers.clear()
            self.senders.clear()
            self._disk.close_all()
            self.journal.keeper._positions.close()
            self.journal._intent._header.close()
            self._start()

    # What may happen next.

    def _claim(self) -> None:
        sender = Sender(self, self.chance.choice(DEVICES))
        self.senders.add(sender)
        self.journal.claim(sender.device, sender)

    def _bring(self) -> None:
        able = [each for each in self._sorted() if each.lease is not None and not each.is_fenced]
        if able and not self._is_paused:
            self.chance.choice(able).bring()

    def _yield_lease(self) -> None:
        for sender in self._sorted():
            if sender.is_fenced or self.chance.random() < 0.1:
                self.senders.discard(sender)
                if sender.lease is not None:
                    self.journal.release(sender.lease)
                else:
                    self.journal.withdraw(sender.device, sender)

    def _step(self) -> None:
        if self._wait.until is None or self.chance.random() < 0.5:
            self.clocks.advance(self._wait.seconds)
            self._wait = self.journal.writer.step() or self._wait

    def _answer(self) -> None:
        for _ in range(self.chance.randint(1, len(self._answers) + 1)):
            if self._answers:
                call, *arguments = self._answers.popleft()
                call(*arguments)

    def _pass_time(self) -> None:
        self.clocks.advance(self.chance.choice([0.1, 1, 30]))
        if not self._is_moved:
            self.clocks.set(self.chance.choice([0, 0, 0, 1e6, -1e6]))

    def _other(self) -> None:
        active = self._layout.log_folder / "ingest.log"
        match self.chance.randint(1, 5):
            case 1 if not self._is_moved:
                self.journal.rotate(lambda _: None)
            case 2:
                self.journal.keeper.step()
            case 3:
                self.journal.archivist.step()
            case 4 if active.exists() and self._is_moved:
                active.rename(active.with_name(f"ingest.log.{2000 - len(self._files())}"))
            case _:
                raise Killed

    def _finish(self) -> None:
        """Let the disk be well, and everybody hear."""
        self._disk.fault_rate = self._disk.kill_rate = 0.0
        for _ in range(4):
            self.clocks.advance(2)
            self._wait = self.journal.writer.step() or self._wait
            while self._answers:
                self._answer()
        for sender in self._sorted():
            if sender.lease is not None and sender.lease.holder is sender:
                assert sender.lease.durable == sender.lease.last
        assert self.journal.health is None
        assert self.journal.backlog == 0
        assert not self._is_paused
        self.journal.close()

    def _sorted(self) -> list[Sender]:
        """The senders, in an order that is the same each time."""
        return sorted(self.senders, key=lambda each: each.number)

    def _files(self) -> list[Path]:
        folder = self._layout.log_folder
        moved = sorted(folder.glob("ingest.log.*"), key=lambda path: -int(path.suffix[1:]))
        return [*sorted(folder.glob("ingest-*")), *moved, *folder.glob("ingest.log")]

    def _check(self) -> None:
        """Every line is whole, every number there once, and what was acknowledged is there."""
        found: dict[str, list[int]] = {device: [] for device in DEVICES}
        for path in self._files():
            content = path.read_bytes()
            assert content.endswith(b"\n") or not content, f"{path.name} ends within a line"
            for text in content.splitlines():
                match = _RECORD.fullmatch(text)
                assert match is not None, f"{path.name}: {text!r}"
                found[match[1].decode()].append(int(match[2]))
        for device, numbers in found.items():
            assert sorted(numbers) == list(range(1, len(numbers) + 1)), (device, numbers)
            assert len(numbers) >= self.acknowledged[device]
        failed = [each for each in self.events if isinstance(each, HolderFailed)]
        assert all(isinstance(each.error, ArithmeticError) for each in failed), failed


def run(seed: int) -> History:
    """Live through the history of a seed.

    Raises:
        AssertionError: a promise is broken; its note names the seed.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # SQLite's syncs are real
        try:
            history = History(Path(folder) / "data", seed)
            history.run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        return history


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        run(each)
