"""What the comparison prints: Markdown."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.bench.rivals import Sample

OURS = "ingest"


@dataclass(frozen=True)
class Finding:
    """What was measured for one line of the requirements.

    Attributes:
        work: what was done.
        measured: the figures, for a person.
        must: what must be reached.
        aim: what should be.
        reached: whether the first was; None if it was not measured.
        aimed: whether the second was.
    """

    work: str
    measured: str
    must: str
    aim: str
    reached: bool | None
    aimed: bool = False

    @property
    def verdict(self) -> str:
        """The last column."""
        if self.reached is None:
            return "not measured"
        if not self.reached:
            return "**not reached**"
        return "aim reached" if self.aimed else "reached"


@dataclass(frozen=True)
class Contest:
    """The same frames for several listeners; the median of each."""

    work: str
    samples: dict[str, Sample]

    def ratio(self, other: str) -> float | None:
        """Return how many times the other's frames a second ours are."""
        if other not in self.samples:
            return None
        return self.samples[OURS].rate / max(self.samples[other].rate, 1e-9)


@dataclass(frozen=True)
class Result:
    """What a row of the comparison gives."""

    findings: list[Finding] = field(default_factory=list)
    contests: list[Contest] = field(default_factory=list)


def render(results: Iterable[Result]) -> Iterator[str]:
    """Yield the lines of the tables that have any."""
    kept = list(results)
    contests = [contest for result in kept for contest in result.contests]
    findings = [finding for result in kept for finding in result.findings]
    if contests:
        yield "| work | listener | frames/s | CPU per frame | frames/s, ingest = 1 | lost | late |"
        yield "|---|---|---:|---:|---:|---:|---:|"
        for contest in contests:
            yield from _contest_lines(contest)
        yield ""
    if findings:
        yield "| work | measured | must reach | aim | verdict |"
        yield "|---|---|---|---|---|"
        for each in findings:
            yield f"| {each.work} | {each.measured} | {each.must} | {each.aim} | {each.verdict} |"
        yield ""


def _contest_lines(contest: Contest) -> Iterator[str]:
    ours = contest.samples[OURS].rate
    for name, sample in contest.samples.items():
        yield (
            f"| {contest.work} | {name} | {sample.rate:,.0f} | {1e6 * sample.cpu:.2f} µs"
            f" | {sample.rate / max(ours, 1e-9):.2f} | {sample.lost:,} | {sample.late:,} |"
        )
