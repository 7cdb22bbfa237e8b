"""Takes the rules through the log, step by step, and saves each step. It blocks: it has a thread.

A step reads a few blocks, decides, and saves; then the log of alerts is written. Whoever runs the
steps passes the deliveries on.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ingest.layout import Layout
from ingest.log.decompressing import DAMAGED
from ingest.log.log import LinesMissingError, Log
from ingest.log.places import Place
from ingest.watch.rules.alertlog import AlertLog
from ingest.watch.rules.engine import Engine
from ingest.watch.rules.model import DiskFull, Refused, Rules
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.phases import Event
from ingest.watch.rules.state import Gone, Noted, State
from ingest.watch.rules.surroundings import DiskTrend, Listener, Removals, ask_listener, jumps

_STEP: Final = 0.25
"""Seconds of reading before what was decided is told."""
_SAVE: Final = 5.0
"""Seconds after which a place is saved although nothing has happened. A restart reads that much
again, and decides the same."""
_LATE: Final = 2 * SECOND
"""How much later than its time a record may stand in the log, as commits take a moment."""
_LOOK_AROUND: Final = 15.0
"""Seconds between two looks at what is not in the log."""


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        noted: the events, with their numbers.
        caught_up: whether the log holds nothing more.
        reached: the time of the newest record that was decided on, in microseconds.
        problems: what an operator should know, in words.
    """

    noted: list[Noted]
    caught_up: bool
    reached: int
    problems: list[str] = field(default_factory=list)


def _now() -> int:
    return time.time_ns() // 1000


class Runner:
    """The rules of one data folder."""

    def __init__(
        self,
        layout: Layout,
        rules: Rules,
        now: Callable[[], int] = _now,
        ask: Callable[[Path], Listener | None] = ask_listener,
    ) -> None:
        """Go on from where the rules stood; at the first start, from the end of the log.

        Args:
            layout: where the log and the state are.
            rules: what to look for.
            now: tells the time, in microseconds since 1970.
            ask: asks the listener at a control socket.

        Raises:
            OSError: the log or the log of alerts can't be read.
            sqlite3.Error: the state can't be read.
        """
        layout.create()
        self._layout = layout
        self._now = now
        self._ask = ask
        self._disk = DiskTrend(layout.log_folder)
        self._removals = Removals(layout.devices)
        self._looked = -_LOOK_AROUND
        self._is_broken_off = False
        self.state = State(layout.rules_state)
        try:
            self._alerts = AlertLog(layout.alerts_folder)
            self.state.number_from(self._alerts.last)
            self._log = Log(layout.log_folder)
            if self.state.place is None:
                self.state.save(Engine(()), self._log.end().to_json(), ())
            self._rules = rules
            self._load()
            self._alert_problem = ""
            self._write_alerts()
        except BaseException:
            self.state.close()
            raise

    def close(self) -> None:
        """Save the place, and let go of the files."""
        self._log.close()
        try:
            # On a full disk it stays where it was saved last: no harm is done by that.
            with suppress(sqlite3.Error):
                if not self._is_broken_off:
                    place = self._place.to_json()
                    self.state.save(self._engine, place, self._gone.events, self._gone)
        finally:
            self.state.close()

    def set_rules(self, rules: Rules) -> None:
        """Take other rules from the next step on. Rules of the same name go on as they stood."""
        self._rules = rules
        self._load()

    def step(self) -> Step:
        """Go on for a moment, or to the end of the log, and save where that is.

        Raises:
            OSError: the log can't be read, or the disk is full or failing. Nothing is lost: the
                next step begins at what was saved.
            sqlite3.Error: as above.
        """
        if self._is_broken_off:
            self._load()
        self._is_broken_off = True
        step = self._step()
        self._is_broken_off = False
        return step

    def _load(self) -> None:
        """Stand where was saved last."""
        is_jump = jumps(self._layout.log_folder)
        self._engine, self._gone = self.state.load(self._rules.rules, is_jump)
        place = self.state.place
        assert place is not None
        self._place = self._kept = Place.from_json(place)
        self._saved = time.monotonic()
        self._is_broken_off = False

    def _step(self) -> Step:
        begun = time.monotonic()
        events, problems = list(self._gone.events), list[str]()
        caught_up, problem = False, ""
        while problem or (not caught_up and time.monotonic() - begun < _STEP):
            block, problem = self._read()
            problems += [problem] if problem else []
            events += self._engine.feed(block)
            caught_up = not block and not problem
        reached = self._engine.clock
        if caught_up:
            events += self._engine.advance(self._now() - _LATE)
            events += self._look_around()
        noted = self._save(events)
        problems += self._write_alerts()
        return Step(noted, caught_up, reached, problems)

    def _read(self) -> tuple[bytes, str]:
        """Read on; what is gone from the log is told, and reading goes on behind it."""
        try:
            self._place, block = self._log.read_from(self._place)
        except LinesMissingError as error:
            self._place = error.place
            self._engine.skip()
            return b"", str(error)
        except DAMAGED as error:
            raise OSError(f"a file of the log is damaged: {error}") from error
        return block, ""

    def _look_around(self) -> list[Event]:
        """Look at what is not in the log, now and then."""
        now = time.monotonic()
        if now - self._looked < _LOOK_AROUND:
            return []
        self._looked = now
        events: list[Event] = []
        tests = {type(rule.test) for rule in self._rules.rules}
        for device in self._removals.look(self._engine.devices.values()):
            self._engine.changed.add(device)
            if not device.registered:
                events += self._engine.forget(device, self._now())
        listener = self._ask(self._layout.control) if tests & {DiskFull, Refused} else None
        if DiskFull in tests:
            measured = self._disk.full_in(now)
            full_in = measured if listener is None else listener.disk_full_in
            events += self._engine.disk(full_in, self._now())
        if listener is not None and Refused in tests:
            started = self._now() - round(listener.uptime * SECOND)
            events += self._engine.refusals(listener.refusals, started, self._now())
        return events

    def _save(self, events: list[Event]) -> list[Noted]:
        """Save what happened at once, and else the place now and then."""
        engine = self._engine
        is_new = bool(self._place != self._kept or engine.changed or engine.changed_watches)
        due = is_new and time.monotonic() - self._saved >= _SAVE
        noted: list[Noted] = []
        if events or self._gone.watches or due:
            noted = self.state.save(engine, self._place.to_json(), events, self._gone)
            self._gone, self._kept, self._saved = Gone(), self._place, time.monotonic()
        return noted

    def _write_alerts(self) -> list[str]:
        """Write what is saved and not in the log of alerts yet; what fails is tried again.

        Returns:
            Why it failed, the first time.
        """
        new = self.state.after(self._alerts.last)
        before, self._alert_problem = self._alert_problem, ""
        try:
            self._alerts.write((each.number, each.event) for each in new)
        except OSError as error:
            self._alert_problem = f"the log of alerts can't be written: {error.strerror}"
        return [self._alert_problem] if self._alert_problem not in ("", before) else []
