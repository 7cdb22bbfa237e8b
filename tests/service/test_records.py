"""The journal as a service: what a start that fails says."""

import sqlite3
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.interfaces import IReactorFromThreads

from ingest.journal.file import JournalPolicy
from ingest.journal.measures import Measures
from ingest.journal.positions import Positions
from ingest.layout import Layout
from ingest.service.parts import Records
from ingest.service.process import StartError
from tests.listener.parts import Turns


def test_a_copy_of_the_numbers_that_fails_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    layout = Layout(tmp_path / "data")
    layout.create()
    records = Records(layout, JournalPolicy(), Measures(), cast(IReactorFromThreads, Turns()))
    monkeypatch.setattr(Positions, "copy_to", fail)
    with pytest.raises(StartError, match=r"positions\.db: disk I/O error"):
        records.startService()
    assert not records.running
    records.close()  # as the tree does when a start fails
    monkeypatch.undo()
    records.startService()
    records.close()
