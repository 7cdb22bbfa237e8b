"""What watching costs the devices: `python -m tests.bench.watched [--rounds 5]`.

One listener, and devices that send at their usual pace. In each round they do it without a page,
with one that nobody looks at, with one that is frozen, with one that is killed while they send,
and with one that is flooded (see `tests.watch.flood`). The page runs with the priority that its
unit gives it. All share this machine, so the ratios to the same round without a page count.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

import click

from ingest.bench import local
from ingest.bench.crew import Crew
from ingest.bench.plan import Sent
from ingest.bench.report import percentile
from ingest.layout import Layout
from tests.bench.setting import Site, plan_for, site

_SETTLE: Final = 2.0  # seconds until a page has begun to follow, and a flood to flow
_PAGE: Final = (
    *("nice", "-n", "5", sys.executable, "-c"),  # as deploy/ingest-watch.service has it
    "from twisted.scripts.twistd import run; run()",
)


@dataclass(frozen=True)
class Taken:
    """What one turn gave.

    Attributes:
        p50, p99: seconds from a frame to its acknowledgement.
        cpu: the listener's share of a core.
        lost: frames that were sent and not acknowledged.
    """

    p50: float
    p99: float
    cpu: float
    lost: int


@contextmanager
def _page(layout: Layout) -> Iterator[tuple[local.Process, str]]:
    port = local.free_port()
    http = f"tcp:{port}:interface={local.HOST}"
    words = ("-n", "--pidfile=", "ingest-watch", "--data", str(layout.data), "--http", http)
    with local.running((*_PAGE, *words), port, layout.data / "page.txt") as process:
        time.sleep(_SETTLE)
        yield process, f"http://{local.HOST}:{port}/"


@contextmanager
def _nothing(_: Site) -> Iterator[Callable[[], None]]:
    yield lambda: None


@contextmanager
def _idle(ours: Site) -> Iterator[Callable[[], None]]:
    with _page(ours.layout):
        yield lambda: None


@contextmanager
def _frozen(ours: Site) -> Iterator[Callable[[], None]]:
    with _page(ours.layout) as (process, _):
        os.kill(process.pid, signal.SIGSTOP)
        yield lambda: None
        os.kill(process.pid, signal.SIGCONT)


@contextmanager
def _killed(ours: Site) -> Iterator[Callable[[], None]]:
    with _page(ours.layout) as (process, _):
        yield lambda: os.kill(process.pid, signal.SIGKILL)


@contextmanager
def _flooded(ours: Site) -> Iterator[Callable[[], None]]:
    device = ours.plan.devices[0].name
    with _page(ours.layout) as (_, url):
        command = [sys.executable, "-m", "tests.watch.flood", url, device, "value"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as flood:
            time.sleep(_SETTLE)
            yield lambda: None
            said, _ = flood.communicate()
        click.echo(f"the flood got {json.loads(said)}", err=True)


_WAYS: Final = {
    "without a page": _nothing,
    "a page that nobody looks at": _idle,
    "a page that is frozen": _frozen,
    "a page that is killed meanwhile": _killed,
    "a page that is flooded": _flooded,
}


def _take(ours: Site, way: str) -> Taken:
    """Let the devices send once."""
    with _WAYS[way](ours) as halfway, Crew([ours.plan]) as crew:
        crew.connect()
        before, begun = ours.process.cpu(), time.monotonic()
        crew.begin()
        time.sleep((ours.plan.seconds or 0.0) / 2)
        halfway()
        sent: Sent = crew.finish()
        cpu = ours.process.cpu().since(before).all / (time.monotonic() - begun)
    p50, p99 = (percentile(sent.latencies, share) for share in (0.5, 0.99))
    return Taken(p50, p99, cpu, sent.frames - sent.acknowledged)


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--devices", type=click.IntRange(1, 20_000), default=1000, show_default=True)
@click.option("--rate", default=1.0, show_default=True, help="Frames a second of each device.")
@click.option("--seconds", default=6.0, show_default=True, help="How long each turn takes.")
def main(rounds: int, devices: int, rate: float, seconds: float) -> None:
    """Measure, and print a table in Markdown."""
    plan = plan_for(devices, pattern="paced", rate=rate, seconds=seconds)
    taken: dict[str, list[Taken]] = {way: [] for way in _WAYS}
    with site(plan) as ours:
        for _ in range(rounds):
            for way, list_ in taken.items():
                list_.append(_take(ours, way))
    click.echo("| | p50 | p99 | p50, paired | p99, paired | listener | not acknowledged |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|")
    alone = taken["without a page"]
    for way, list_ in taken.items():
        p50, p99 = (median(getattr(each, name) for each in list_) for name in ("p50", "p99"))
        of50, of99 = (
            median(getattr(a, name) / getattr(b, name) for a, b in zip(list_, alone, strict=True))
            for name in ("p50", "p99")
        )
        click.echo(
            f"| {way} | {1e3 * p50:.2f} ms | {1e3 * p99:.2f} ms | {of50:.2f} | {of99:.2f}"
            f" | {median(each.cpu for each in list_):.0%} | {max(each.lost for each in list_)} |"
        )


if __name__ == "__main__":
    main()
