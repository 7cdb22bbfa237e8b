"""The other listeners: how they are configured, started and measured.

They take lines of text, authenticate nobody and acknowledge nothing; each is set up to do as
little besides as it can. What it writes is a line of JSON with time, sender and text.
"""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from ingest.bench import local
from ingest.bench.crew import Crew
from ingest.bench.plan import Plan
from ingest.bench.run import split

ROOT = Path(__file__).parents[2]

_STALL = 2.0  # seconds without growth, after which what is missing is lost
_POLL = 0.02  # seconds

_RSYSLOG = """\
global(workDirectory="{folder}" maxMessageSize="64k")
main_queue(queue.type="FixedArray" queue.size="200000" queue.dequeueBatchSize="2048")
module(load="imptcp" threads="2")
template(name="json" type="list" option.jsonf="on") {{
  property(outname="time" name="timegenerated" dateFormat="rfc3339" format="jsonf")
  property(outname="device" name="fromhost-ip" format="jsonf")
  property(outname="text" name="rawmsg" format="jsonf")
}}
ruleset(name="frames") {{ action(type="omfile" file="{log}" template="json" ioBufferSize="64k") }}
input(type="imptcp" address="127.0.0.1" port="{port}" ruleset="frames")
"""

_SYSLOG_NG = """\
@version: 3.35
options {{ stats-freq(0); }};
source frames {{
  network(ip("127.0.0.1") port({port}) transport("tcp") flags(no-parse)
          max-connections(20000) log-iw-size(2000000) log-fetch-limit(1000));
}};
destination out {{
  file("{log}"
       template("$(format-json time=${{R_ISODATE}} device=${{SOURCEIP}} text=${{MSG}})\\n"));
}};
log {{ source(frames); destination(out); flags(flow-control); }};
"""


@dataclass(frozen=True)
class Sample:
    """One run of one listener.

    Attributes:
        rate: frames a second that reached its file.
        cpu: seconds of a core for each.
        lost: frames that never did.
        late: frames that did only when it was stopped.
    """

    rate: float
    cpu: float
    lost: int
    late: int = 0


def middle(samples: Sequence[Sample]) -> Sample:
    """Return the medians of some samples, and the most that was lost or late."""
    return Sample(
        median(sample.rate for sample in samples),
        median(sample.cpu for sample in samples),
        max(sample.lost for sample in samples),
        max(sample.late for sample in samples),
    )


Command = Callable[[Path, Path, int], list[str]]
"""Takes a folder, the log to write and the port to listen on, and returns a command line."""


def rivals() -> dict[str, Command]:
    """Return the rivals that this machine has, by name.

    `$RSYSLOGD` may say how to start an rsyslog that is not installed in the system, such as
    `DIR/usr/sbin/rsyslogd -M DIR/usr/lib/x86_64-linux-gnu/rsyslog`: Debian's rsyslog and
    syslog-ng packages exclude each other.
    """
    found: dict[str, Command] = {}
    rsyslogd = shlex.split(os.environ.get("RSYSLOGD", "")) or _which("rsyslogd")
    syslog_ng = _which("syslog-ng")
    if rsyslogd:
        found["rsyslog"] = lambda *where: _rsyslog(rsyslogd, *where)
    if syslog_ng:
        found["syslog-ng"] = lambda *where: _syslog_ng(syslog_ng, *where)
    found["naive Twisted"] = _naive
    return found


def _which(name: str) -> list[str]:
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return [path] if path else []


def _configure(template: str, folder: Path, log: Path, port: int) -> str:
    path = folder / "rival.conf"
    path.write_text(template.format(folder=folder, log=log, port=port))
    return str(path)


def _rsyslog(program: list[str], folder: Path, log: Path, port: int) -> list[str]:
    config = _configure(_RSYSLOG, folder, log, port)
    return [*program, "-n", "-f", config, "-i", str(folder / "rival.pid")]


def _syslog_ng(program: list[str], folder: Path, log: Path, port: int) -> list[str]:
    config = _configure(_SYSLOG_NG, folder, log, port)
    state = ("-R", f"{folder}/persist", "-c", f"{folder}/control", "-p", f"{folder}/rival.pid")
    return [*program, "-F", "--no-caps", "-f", config, *state]


def _naive(_: Path, log: Path, port: int) -> list[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.bench.naive import serve;"
    return [sys.executable, "-c", f"{code} serve({port}, {str(log)!r})"]


def measure_rival(command: Command, plan: Plan, folder: Path, processes: int) -> Sample:
    """Send a plan's frames to a rival, until its file has them all or grows no more.

    Args:
        command: how to start it.
        plan: what to send; it has a number of frames. Nobody authenticates, nobody wants ACKs.
        folder: an empty one for its files.
        processes: how many the load takes.
    """
    port, log = local.free_port(), folder / "rival.log"
    log.touch()
    plan = replace(plan, host=local.HOST, port=port, mechanism=None, acks=False)
    with (
        local.running(command(folder, log, port), port, folder / "out.txt") as process,
        Crew(split(plan, processes)) as crew,
    ):
        crew.connect()
        cpu = process.cpu().all
        sent = crew.run()
        ended = max(sent.ended, _wait_until_written(log))
        cpu = process.cpu().all - cpu
        written = count_lines(log)
    after = count_lines(log)
    return Sample(
        written / (ended - sent.begun),
        cpu / max(1, written),
        sent.frames - after,
        after - written,
    )


def _wait_until_written(log: Path) -> float:
    """Wait until a file has not grown for a while, and return when it last did."""
    size, last = 0, time.monotonic()
    while time.monotonic() - last < _STALL:
        if log.stat().st_size > size:
            size, last = log.stat().st_size, time.monotonic()
        time.sleep(_POLL)
    return last if size else 0.0


def count_lines(log: Path) -> int:
    """Return how many lines a file has, whole ones."""
    with log.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(partial(stream.read, 1 << 20), b""))
