"""How many records a second the rules keep up with. Run it: `python -m tests.bench.rules_speed`.

Twenty rules go through a log of 1,000 devices, whose frames come one at a time and in turn, as at
50,000 frames a second. What they decide is saved as ever. It takes the processor's time, of one
core, and the best of several rounds, since other programs disturb it.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from ingest.layout import Layout
from ingest.log.files import ACTIVE
from ingest.log.places import START
from ingest.record import Values, record_block
from ingest.watch.rules.engine import Engine
from ingest.watch.rules.rulesfile import read_rules
from ingest.watch.rules.runner import Runner
from ingest.watch.rules.state import State
from tests.bench.verify_speed import DATA, TEXT, Kind

RECORDS = 500_000
RATE = 50_000  # records a second, by the log's time
DEVICES = 1000
ROUNDS = 3

JSON: Kind = (
    b',"text":"',
    rb"{\"temp\":20.5,\"hum\":41,\"door\":\"shut\",\"battery\":87,\"x\":%d}",
    b'"}\n',
)

HEADS = """
[[rule]]
name = "gap"
missing_numbers = true
[[rule]]
name = "quiet"
silent = "10m"
[[rule]]
name = "unusual"
silent = "learned"
"""
"""Rules that look at the heads of all records."""

EVERYWHERE = "\n".join(
    f'[[rule]]\nname = "everywhere {number}"\nwhen = "{condition}"\n'
    for number, condition in enumerate(
        [
            *(f"temp > {limit} && hum < 90" for limit in range(21, 30)),
            f"x >= {RECORDS - DEVICES}",
            *(f"hum > {limit} || door == 'ajar'" for limit in range(90, 98)),
            "rate(temp) > 1000",
            "temp - previous.temp > 5",
        ]
    )
)
"""Each of them looks at each record."""

SPREAD = (
    "\n".join(
        f'[[rule]]\nname = "spread {number}"\ndevices = "d-*{number:02d}"\nwhen = "temp > 25"\n'
        for number in range(16)
    )
    + """
[[rule]]
name = "pressure"
when = "pressure > 1100"
"""
    + HEADS
)
"""As in a fleet: each for some devices, and a few that look at the heads of all records."""

MIXED = (
    """
[[rule]]
name = "hot"
when = "temp > 30"
for = "10m"
clear = "temp < 25"
[[rule]]
name = "cold"
when = "temp < -10 && door == 'shut'"
[[rule]]
name = "leap"
when = "rate(temp) > 1000"
[[rule]]
name = "step"
when = "temp - previous.temp > 5 || previous.temp - temp > 5"
[[rule]]
name = "dew"
when = "hum > 90 && temp < 12"
keep_firing_for = "5m"
[[rule]]
name = "open"
when = "door in ['open', 'ajar'] && temp > 28"
[[rule]]
name = "weak"
when = "battery < 10 || (battery < 20 && temp < 0)"
[[rule]]
name = "stale"
when = "age(battery) > 600"
[[rule]]
name = "odd"
when = "text.startsWith('ERR') || text.contains('panic')"
[[rule]]
name = "pressure"
when = "has(fields.pressure) && pressure > 1100"
"""
    + HEADS
    + """[[rule]]
name = "no temperature"
silent = "learned"
field = "temp"
"""
    + "\n".join(
        f'[[rule]]\nname = "site {number}"\ndevices = "d-*{number}?"\n'
        'when = "temp * 1.8 + 32 > 100"\n'
        for number in range(6)
    )
)
"""As somebody would write them, and nearly all of them about every record."""

NARROW = "\n".join(
    f'[[rule]]\nname = "narrow {number}"\ndevices = "d-{number:03d}"\nwhen = "temp > 25"\n'
    for number in range(20)
)
"""Twenty devices of a thousand."""


def write_log(path: Path, kinds: Iterable[Kind]) -> None:
    """Write the log: each device in turn, each kind in turn."""
    kinds = list(kinds)
    with path.open("wb") as stream:
        for number in range(RECORDS):
            key, value, end = kinds[number % len(kinds)]
            seconds, micros = divmod(number * 1_000_000 // RATE, 1_000_000)
            stamp = b"2026-11-22T11:%02d:%02d.%06dZ" % (*divmod(seconds, 60), micros)
            device = b"d-%03d" % (number % DEVICES)
            values = Values(key, [value % number], end)
            stream.write(record_block(stamp, device, number // DEVICES + 1, values))


def measure(layout: Layout, rules: str) -> tuple[float, int]:
    """Take the rules through the log; returns records for each second of the processor, events."""
    path = layout.data / "rules.toml"
    path.write_text(rules)
    state = State(layout.rules_state)
    state.save(Engine(()), START.to_json())
    state.close()
    runner = Runner(layout, read_rules(path), now=lambda: 0)
    events = 0
    begun = time.process_time()
    while True:
        step = runner.step()
        events += len(step.noted)
        if step.caught_up:
            break
    spent = time.process_time() - begun
    runner.close()
    return RECORDS / spent, events


def fresh(layout: Layout) -> None:
    """Forget what an earlier round has saved."""
    for path in (*layout.state_folder.glob("rules.db*"), *layout.alerts_folder.glob("*")):
        path.unlink()


def main() -> None:
    kinds = {"key=value": [TEXT], "JSON as text": [JSON], "msgpack": [DATA],
             "all three": [TEXT, JSON, DATA]}  # fmt: skip
    sets = {
        "all rules on all records": EVERYWHERE,
        "of all kinds": MIXED,
        "rules of a fleet": SPREAD,
        "20 devices": NARROW,
    }
    print(f"{RECORDS:,} records of {DEVICES:,} devices, 20 rules, one core")
    for kind, frames in kinds.items():
        with TemporaryDirectory() as name:
            layout = Layout(Path(name))
            layout.create()
            write_log(layout.log_folder / ACTIVE, frames)
            for title, rules in sets.items():
                best, events = 0.0, 0
                for _ in range(ROUNDS):
                    fresh(layout)
                    speed, events = measure(layout, rules)
                    best = max(best, speed)
                cost = f"{1e6 / best:5.1f} us a record"
                print(
                    f"{title:26}{kind:14}{best:10,.0f} records/s {cost} {events:5} events",
                    flush=True,
                )


if __name__ == "__main__":
    main()
