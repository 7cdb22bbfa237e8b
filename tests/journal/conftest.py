"""The journals, each driven by hand; a folder for a log, and a disk that fails when asked to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journal.disks import FaultyDisk
from tests.support.journals import JOURNALS, Driven


@pytest.fixture(params=JOURNALS, ids=lambda kind: kind.__name__)
def driven(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driven]:
    """Each journal in turn."""
    driven = JOURNALS[request.param](tmp_path)
    yield driven
    driven.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a log."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def disk() -> FaultyDisk:
    """A disk whose calls a test may let fail."""
    return FaultyDisk()
