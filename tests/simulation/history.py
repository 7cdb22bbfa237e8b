"""One history: devices, a network, an operator and a disk, whose turns chance decides.

Everything is in one thread and on one clock, and every decision is drawn from one seed. So a
history can be lived through again, step by step.
"""

import shutil
import tempfile
from bisect import bisect
from collections import deque
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from random import Random
from random import seed as seed_global
from unittest.mock import patch

from ingest.journal import file
from ingest.journal.file import JournalPolicy
from ingest.journal.rotation import RotationPolicy
from ingest.layout import Layout
from ingest.listener.phases import Phase
from tests.simulation.device import TOKEN, Device, login
from tests.simulation.disk import (
    FAILING,
    FLAKY,
    NO_DESCRIPTOR,
    NO_SYNC,
    WELL,
    Killed,
    ModelDisk,
    Weather,
)
from tests.simulation.listener import EmptyRegistry, Listener, Time, verifier
from tests.simulation.promises import Promises
from tests.simulation.wire import Message, Wire

NAMES = ("ant", "bee", "cat")
SHM = Path("/dev/shm")  # a file system in memory: SQLite's syncs cost nothing there
_REMEMBERED = 30
_BACKLOG = 1500
"""Bytes that may wait for the disk: few, so that short histories come to the limit."""
_SIZES = (0, 5, 40, 300)
"""Bytes of frames, beside their name and number."""
_FRAMES = 40
"""Frames that a device makes before it knows that all are on disk."""
_ROUNDS = 400
"""Rounds in which all must come to rest once the disk is well."""


class BrokenPromise(Exception):  # noqa: N818 - reads better where it is caught
    """What went wrong, with the seed, the step, and what came before."""

    def __init__(self, seed: int, step: int, events: list[str], error: BaseException) -> None:
        self.seed = seed
        self.step = step
        self.events = events
        self.error = f"{type(error).__name__}: {error}"
        super().__init__(seed, step, events, error)

    def __reduce__(self) -> tuple[type, tuple[int, int, list[str], Exception]]:
        return BrokenPromise, (self.seed, self.step, self.events, Exception(self.error))

    def __str__(self) -> str:
        last = "\n".join(f"    {event}" for event in self.events)
        return (
            f"seed {self.seed}, step {self.step}: {self.error}\n{last}\n"
            f"  again: python -m tests.simulation --seed {self.seed}"
        )


class History:
    """The history of one seed.

    Attributes:
        counts: what happened, and how often.
        step: the number of the step.
        events: what happened last.
    """

    def __init__(
        self, seed: int, folder: Path, trace: Callable[[str], object] | None = None
    ) -> None:
        """Prepare it.

        Args:
            seed: decides all.
            folder: an empty one, in memory.
            trace: called with every event.
        """
        self._seed = seed
        self.chance = chance = Random(seed)
        seed_global(seed)  # the fleet resumes connections in random order
        self.counts: dict[str, int] = {}
        self.step = 0
        self.events: deque[str] = deque(maxlen=_REMEMBERED)
        self._trace = trace
        self._layout = Layout(folder / "data")
        self._layout.create()
        self._time = Time()
        self._registry = EmptyRegistry(":memory:")
        names = NAMES[: chance.randint(1, len(NAMES))]
        self._registry.add_many((name, verifier(TOKEN), "") for name in names)
        self._devices = {name: Device(name) for name in names}
        self._disabled: set[str] = set()
        self._disk = ModelDisk(self._layout.log_folder, self._layout.intent, chance)
        self._promises = Promises(self._layout.log_folder, self._disk, self._devices)
        self._policy = JournalPolicy(
            RotationPolicy(chance.choice((0, 0, 400, 2000)), chance.choice((0, 0, 60)))
        )
        self._wires: list[Wire] = []
        self._owners: dict[Wire, str] = {}
        self._made = 0
        self._noted = 0
        self._broken: AssertionError | None = None
        self._listener: Listener | None = None
        self._kill_rate = chance.choice((0.0, 0.0, 0.01, 0.05, 0.1))
        weighted = self._weighted()
        self._acts = list(weighted)
        self._weights = list(accumulate(weighted.values()))
        for device in self._devices.values():
            for _ in range(chance.randint(0, 8)):
                device.make(chance.choice(_SIZES))

    def _weighted(self) -> dict[Callable[[], None], float]:
        """Choose how likely each act is; in each history some never happen.

        Where everything may happen, some of it hardly ever comes together.
        """
        usual = {
            self._make_frames: 2.0,
            self._connect: 2.0,
            self._send: 5.0,
            self._deliver: 8.0,
            self._read: 3.0,
            self._check_token: 4.0,
            self._write: 3.0,
            self._answer: 3.0,
            self._keep: 0.3,
            self._pass_time: 1.0,
        }
        rare = {
            self._send_half: 0.5,
            self._close: 0.5,
            self._impostor: 0.3,
            self._break_wire: 0.2,
            self._change_weather: 0.8,
            self._kill: 0.2,
            self._cut_power: 0.15,
            self._stop: 0.1,
            self._revoke: 0.3,
            self._enable: 0.6,
            self._rotate: 0.5,
            self._hold: 0.3,
            self._release: 0.5,
            self._set_clock: 0.2,
        }
        factors = (0.0, 0.0, 0.5, 1.0, 2.0)
        chosen = {act: weight * self.chance.choice(factors) for act, weight in rare.items()}
        return {act: weight for act, weight in {**usual, **chosen}.items() if weight}

    def run(self) -> None:
        """Live through it.

        Raises:
            BrokenPromise: a promise was broken.
        """
        try:
            self._start()
            for _ in range(self.chance.choice((30, 60, 60, 120))):
                self.step += 1
                self._do(self._act)
            self._come_to_rest()
        except Exception as error:
            raise BrokenPromise(self._seed, self.step, list(self.events), error) from error
        finally:
            self._end_process()
            self._promises.tail.leave()
            self._registry.close()

    def _act(self) -> None:
        """Let something happen."""
        noted = self._noted
        while self._noted == noted:
            self._acts[bisect(self._weights, self.chance.random() * self._weights[-1])]()

    def _do(self, act: Callable[[], None]) -> None:
        try:
            act()
            if self._broken is not None:
                raise self._broken
            if self._listener is not None:
                self._promises.check(self._listener)
        except Killed:
            self._die("killed within a call")
            if self.chance.random() < 0.4:
                self._cut_power()

    def _note(self, event: str, *details: object) -> None:
        self.counts[event] = self.counts.get(event, 0) + 1
        text = f"{self.step} {event} {' '.join(map(str, details))}".rstrip()
        self._noted += 1
        self.events.append(text)
        if self._trace is not None:
            self._trace(text)

    # The listener's life.

    def _start(self) -> None:
        if self._listener is not None:
            return
        self._disk.kill_rate = self._kill_rate / 2
        try:
            self._listener = Listener(
                self._layout, self._policy, self._registry, self._disk, self._time
            )
        except OSError as error:
            self._note("start fails:", error)
            self._disk.end_process()
            return
        except Killed:
            self._note("killed at its start")
            self._disk.end_process()
            if self.chance.random() < 0.4:
                self._cut_power()
            return
        self._disk.kill_rate = self._kill_rate
        self._note("started")
        self._promises.started()

    def _kill(self) -> None:
        if self._listener is not None:
            self._die("killed")

    def _die(self, how: str) -> None:
        self._note(how)
        self._end_process()

    def _end_process(self) -> None:
        self._disk.end_process()
        if self._listener is not None:
            self._listener.forget()
            self._listener = None
        for wire in self._wires:
            wire.is_lost = True
            wire.reset()
        self._wires.clear()

    def _cut_power(self) -> None:
        self._note("power cut")
        self._promises.power_was_cut()
        self._end_process()
        self._disk.cut_power()

    def _stop(self) -> None:
        listener = self._listener
        if listener is None:
            return
        self._note("stopped")
        self._promises.released()
        for wire in self._wires:
            wire.may_hear.add("shutting-down")
        listener.stop()
        while listener.answers:
            listener.answer()
        self._listener = None
        self._end_process()

    # The devices and the network.

    def _make_frames(self) -> None:
        device = self._any_device()
        if device.is_done or len(device.frames) < _FRAMES:
            self._note("makes frames", device.name)
            for _ in range(self.chance.randint(1, 5)):
                device.make(self.chance.choice(_SIZES))

    def _any_device(self) -> Device:
        return self.chance.choice(list(self._devices.values()))

    def _new_wire(self, owner: str) -> Wire | None:
        if self._listener is None:
            self._start()
            return None
        self._made += 1
        connection = self._listener.connection(self._made)
        wire = Wire(self._made, connection, self.chance.random() < 0.4, self._said)
        self._wires.append(wire)
        self._owners[wire] = owner
        wire.open()
        return wire

    def _connect(self) -> None:
        device = self._any_device()
        if device.wire is not None and (not device.may_leave or self.chance.random() < 0.6):
            return
        wire = self._new_wire(device.name)
        if wire is None:
            return
        for other in self._wires:
            if self._owners[other] == device.name:
                other.may_hear.add("replaced")
        if device.name in self._disabled:
            wire.may_hear |= {"auth-failed", "revoked"}
        self._note("connects", device.name, wire.number, "for msgpack" * wire.is_msgpack)
        device.log_in(wire, self.chance.choice((0, 0, 1, 4)))

    def _impostor(self) -> None:
        wire = self._new_wire("")
        if wire is not None:
            self._note("impostor", wire.number)
            wire.may_hear.add("auth-failed")
            name = self._any_device().name
            wire.send(login(name, "guess", wire.is_msgpack) + b"evil\n")

    def _send(self) -> None:
        able = [device for device in self._devices.values() if device.may_send]
        if able:
            device = self.chance.choice(able)
            self._note("sends", device.name)
            device.send(self.chance)

    def _send_half(self) -> None:
        able = [device for device in self._devices.values() if device.may_send]
        if able:
            device = self.chance.choice(able)
            self._note("sends half a frame", device.name)
            device.send_half(self.chance)

    def _close(self) -> None:
        device = self._any_device()
        if device.wire is not None:
            self._note("closes", device.name, device.wire.number)
            device.close(self.chance)

    def _break_wire(self) -> None:
        if self._wires:
            wire = self.chance.choice(self._wires)
            self._note("faulty", wire.number)
            wire.is_faulty = True

    def _deliver(self) -> None:
        due = [wire for wire in self._wires if wire.is_due]
        if due:
            wire = self.chance.choice(due)
            self._note("delivers", wire.number)
            wire.deliver(self.chance, self.chance.choice((7, 100, 5000)))
            self._time.reactor.advance(0)
            self._tidy()

    def _tidy(self) -> None:
        for wire in self._wires:
            if wire.is_aborted and not (wire.is_faulty or wire.may_be_cut):
                raise AssertionError(f"connection {wire.number} was cut for no fault of its own")
        self._wires = [wire for wire in self._wires if not (wire.is_lost and not wire.said)]

    def _read(self) -> None:
        for wire in [wire for wire in self._wires if wire.said]:
            if self.chance.random() < 0.7:
                self._note("reads", wire.number)
                self._hear(wire)
        for device in self._devices.values():
            device.notice()

    def _hear(self, wire: Wire) -> None:
        message = wire.take()
        owner = self._owners[wire]
        if owner:
            self._devices[owner].hear(wire, message)
        elif message.kind != "err":
            raise AssertionError(f"an impostor is told {message}")

    def _said(self, wire: Wire, message: Message) -> None:
        self._note("said", wire.number, *message)
        try:
            self._promises.said(self._owners[wire], wire, message)
        except AssertionError as error:  # the connection would take it for a fault of its own
            self._broken = self._broken or error

    # The listener's threads, and time.

    def _check_token(self) -> None:
        if self._listener is not None and self._listener.checks:
            self._note("checks a token")
            self._listener.check_token(self.chance)

    def _write(self) -> None:
        listener = self._listener
        if listener is not None and listener.is_writer_due:
            self._note("writer")
            listener.step_writer()

    def _answer(self) -> None:
        listener = self._listener
        if listener is not None and listener.answers:
            self._note("answer", getattr(listener.answers[0][0], "__name__", ""))
            listener.answer()
            self._time.reactor.advance(0)

    def _keep(self) -> None:
        if self._listener is not None:
            self._note("keeper")
            self._listener.journal.keeper.step()

    def _pass_time(self) -> None:
        seconds = self.chance.choice((0.01, 0.3, 0.3, 1.0, 30.0))
        self._note("time", seconds)
        self._let_pass(seconds)

    def _let_pass(self, seconds: float) -> None:
        for wire in self._wires:
            wire.may_be_cut = True
            wire.may_hear |= {"auth-timeout", "idle-timeout", "busy"}
        self._time.reactor.advance(seconds)
        listener = self._listener
        if listener is not None:
            listener.fleet.check_deadlines(seconds)
            listener.fleet.check_revocations()
            for member in listener.fleet.devices():
                assert member.phase is not Phase.OPEN or member.device not in self._disabled, (
                    f"{member.device} was revoked, and is still let in"
                )
            self._tidy()

    # The operator, and the disk.

    def _revoke(self) -> None:
        name = self._any_device().name
        self._note("revoked", name)
        self._registry.set_enabled(name, False)
        self._disabled.add(name)
        for wire in self._wires:
            if self._owners[wire] == name:
                wire.may_hear |= {"revoked", "auth-failed"}

    def _enable(self) -> None:
        for name in sorted(self._disabled):
            self._note("enabled", name)
            self._registry.set_enabled(name, True)
        self._disabled.clear()

    def _rotate(self) -> None:
        if self._listener is not None:
            self._note("rotate")
            self._listener.journal.rotate(lambda _: None)

    def _hold(self) -> None:
        if self._listener is not None:
            self._note("hold")
            self._listener.journal.writer.hold(self._promises.held)

    def _release(self) -> None:
        if self._listener is not None and self._listener.journal.hold_ends_in:
            self._note("release")
            self._promises.released()
            self._listener.journal.release_hold()

    def _set_clock(self) -> None:
        self._time.ahead += self.chance.choice((-1e6, -10.0, 10.0, 1e6))
        self._note("clock set")

    def _change_weather(self) -> None:
        full = Weather(room=self.chance.randint(0, 500))
        weather = self.chance.choice((WELL, WELL, full, FAILING, FLAKY, NO_SYNC, NO_DESCRIPTOR))
        self._note("disk", *sorted(weather.calls), weather.rate, weather.room)
        self._disk.become(weather)

    # The end.

    def _come_to_rest(self) -> None:
        """Let the disk be well and everybody come again, and see that nothing is missing."""
        self._note("the disk is well")
        self._disk.become(WELL)
        self._kill_rate = self._disk.kill_rate = 0.0
        self._enable()
        for wire in self._wires:
            wire.is_faulty = False
        self._release()
        for _ in range(_ROUNDS):
            self.step += 1
            self._do(self._round)
            if all(device.is_done for device in self._devices.values()) and self._is_quiet():
                break
        else:
            raise AssertionError("the disk is well, and it does not come to rest")
        assert self._listener is not None
        self._promises.check_at_rest(self._listener)
        self._stop()
        self._promises.check_log()
        for device in self._devices.values():
            assert self._promises.acknowledged[device.name] == len(device.frames)

    def _is_quiet(self) -> bool:
        listener = self._listener
        return (
            listener is not None
            and listener.is_at_rest
            and not any(wire.is_due for wire in self._wires)
        )

    def _round(self) -> None:
        self._start()
        self._release()
        for device in self._devices.values():
            device.notice()
            if device.wire is None and not device.is_done:
                wire = self._new_wire(device.name)
                if wire is not None:
                    for other in self._wires:
                        if self._owners[other] == device.name:
                            other.may_hear.add("replaced")
                    device.log_in(wire, 0)
            elif device.may_send:
                device.send(self.chance)
        self._let_pass(0.3)
        for act in (self._deliver, self._deliver, self._check_token, self._write):
            act()
        while self._listener is not None and self._listener.answers:
            self._answer()
        for wire in [wire for wire in self._wires if wire.said]:
            self._hear(wire)
        self._tidy()


def run(seed: int, trace: Callable[[str], object] | None = None) -> History:
    """Live through the history of a seed.

    Raises:
        BrokenPromise: a promise was broken.
    """
    folder = Path(tempfile.mkdtemp(prefix="ingest-", dir=SHM if SHM.is_dir() else None))
    try:
        with patch.multiple(file, BACKLOG=_BACKLOG, _RELIEVED=_BACKLOG // 4):
            history = History(seed, folder, trace)
            history.run()
        return history
    finally:
        shutil.rmtree(folder)
