"""How a rule fires on a device and stops: states in a table.

```
        holds           due (for)            ends                 due (keep_firing_for)
quiet ────────► pending ─────────► firing ◄────────► keeping ─────────────────────────► quiet
                   └── ends ──► quiet        holds
```

A rule without `for` or `keep_firing_for` passes through `pending` or `keeping` at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from ingest.record import record_time
from ingest.watch.fields import Field
from ingest.watch.rules.model import Rule
from ingest.watch.rules.nodes import SECOND


class Phase(StrEnum):
    """Where a rule stands on a device."""

    QUIET = "quiet"
    PENDING = "pending"
    FIRING = "firing"
    KEEPING = "keeping"


class Input(StrEnum):
    """What happened: the test holds, or no longer, or the time that was waited for has come."""

    HOLDS = "holds"
    ENDS = "ends"
    DUE = "due"


_NEXT: Final = {
    (Phase.QUIET, Input.HOLDS): Phase.PENDING,
    (Phase.PENDING, Input.DUE): Phase.FIRING,
    (Phase.PENDING, Input.ENDS): Phase.QUIET,
    (Phase.FIRING, Input.ENDS): Phase.KEEPING,
    (Phase.KEEPING, Input.HOLDS): Phase.FIRING,
    (Phase.KEEPING, Input.DUE): Phase.QUIET,
}
FIRES: Final = (Phase.PENDING, Phase.FIRING)
CLEARS: Final = (Phase.KEEPING, Phase.QUIET)


@dataclass(slots=True)
class Watch:
    """A rule's state on one device that is not quiet. Times are microseconds since 1970.

    Attributes:
        phase: where it stands.
        since: when the test began to hold.
        seq: the number of the record that it began with; 0 if it was none.
        due: when to look again if nothing happens before; 0 for never.
        fired: when it fired; 0 if it has not.
        reason: what the test said last.
        fields: what an alert shows, of the record that was looked at last.
    """

    phase: Phase = Phase.QUIET
    since: int = 0
    seq: int = 0
    due: int = 0
    fired: int = 0
    reason: str = ""
    fields: dict[str, Field] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        """Whether it has fired and not cleared."""
        return self.phase in (Phase.FIRING, Phase.KEEPING)


@dataclass(frozen=True)
class Event:
    """A rule fired on a device, or cleared.

    Attributes:
        rule: the rule's name.
        device: the device; empty if the rule is about none.
        firing: whether it fired; else it cleared.
        since: when the test began to hold.
        seq: the number of the record that it began with; 0 if it was none.
        fired: when it fired.
        time: when this happened; `fired` if it fired.
        reason: what the test found.
        message: for people.
        fields: the record's fields that the rule reads; None for NaN in what was saved.
    """

    rule: str
    device: str
    firing: bool
    since: int
    seq: int
    fired: int
    time: int
    reason: str
    message: str
    fields: Mapping[str, Field | None]

    @property
    def id(self) -> str:
        """The same for firing and clearing, and whenever the same log is read."""
        text = f"{self.rule}\n{self.device}\n{self.fired}\n{self.seq}"
        return blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def state(self) -> str:
        """`firing` or `cleared`."""
        return "firing" if self.firing else "cleared"

    def described(self) -> dict[str, object]:
        """Return what is told of it, as receivers and the log of alerts get it."""
        return {
            "state": self.state,
            "rule": self.rule,
            "device": self.device,
            "message": self.message,
            "reason": self.reason,
            "since": in_utc(self.since),
            "fired": in_utc(self.fired),
            "time": in_utc(self.time),
            "seq": self.seq,
            "fields": dict(self.fields),
            "id": self.id,
        }


def step(rule: Rule, watch: Watch, happened: Input, time: int) -> tuple[Phase, Phase] | None:
    """Let a watch go on.

    Returns:
        `FIRES`, `CLEARS`, or None.
    """
    made = _go(rule, watch, happened, time)
    if watch.phase in (Phase.PENDING, Phase.KEEPING) and not watch.due:
        made = _go(rule, watch, Input.DUE, time)
    return made if made in (FIRES, CLEARS) else None


def _go(rule: Rule, watch: Watch, happened: Input, time: int) -> tuple[Phase, Phase] | None:
    before = watch.phase
    phase = _NEXT.get((before, happened))
    if phase is None:
        return None
    watch.phase, watch.due = phase, 0
    match before, phase:
        case Phase.QUIET, Phase.PENDING:
            watch.since = watch.since or time
            watch.due = time + rule.hold if rule.hold else 0
        case Phase.PENDING, Phase.FIRING:
            watch.fired = time
        case Phase.FIRING, Phase.KEEPING:
            watch.due = time + rule.keep if rule.keep else 0
    return before, phase


def in_utc(moment: int) -> str:
    """Write microseconds since 1970 as records do: `2026-11-22T11:39:00.123456Z`."""
    return record_time(
        datetime.fromtimestamp(moment // SECOND, UTC).replace(microsecond=moment % SECOND)
    ).decode()


def event(rule: Rule, device: str, watch: Watch, firing: bool, now: int) -> Event:
    """Make the event of a watch that has fired or cleared."""
    values = {
        **watch.fields,
        "device": device,
        "rule": rule.name,
        "reason": watch.reason,
        "since": _to_the_second(watch.since),
        "time": _to_the_second(now),
    }
    return Event(
        rule=rule.name,
        device=device,
        firing=firing,
        since=watch.since,
        seq=watch.seq,
        fired=watch.fired,
        time=now,
        reason=watch.reason,
        message=rule.message.fill(values),
        fields=watch.fields,
    )


def _to_the_second(moment: int) -> str:
    return in_utc(moment)[:19] + "Z"
