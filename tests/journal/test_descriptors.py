"""No descriptor is left, as when connections have used them all up: the journal goes on."""

from pathlib import Path

from ingest.journal.file import JournalPolicy
from ingest.journal.rotation import RotationPolicy
from tests.journal.disks import no_descriptors
from tests.support.journals import FORKS, DrivenFile
from tests.support.waiting import PATIENCE

_SIZE = 1000


def _run(data: Path) -> None:
    with DrivenFile(data, JournalPolicy(RotationPolicy(size=_SIZE))) as running:
        with no_descriptors():
            for _ in range(30):
                running.write("a", 3)
                running.write("b", 3)
            assert running.rotate() is not None
            assert running.journal.health is None
            assert running.flow.paused == running.flow.resumed
            running.write("new", 1)
        running.write("a", 1)
    # What was left to do at the end needs no descriptor either.
    with DrivenFile(data, JournalPolicy(RotationPolicy(size=_SIZE))) as running:
        running.write("a", 1)
        with no_descriptors():
            running.close()


def test_a_journal_without_descriptors(tmp_path: Path) -> None:
    """In a process of its own, whose limit it is."""
    process = FORKS.Process(target=_run, args=(tmp_path,))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    files = sorted((tmp_path / "log").glob("ingest*.log"))
    assert len(files) > 10
    assert max(path.stat().st_size for path in files) <= _SIZE
    lines = b"".join(path.read_bytes() for path in files).splitlines()
    assert len(lines) == 30 * 6 + 3
