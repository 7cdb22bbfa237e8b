"""What a journal measures of its commits."""

import os
from pathlib import Path

import pytest

from ingest.journal.interface import Lease
from ingest.journal.measures import Probe, TimedDisk
from tests.support.journals import Holder


class TestProbe:
    def test_it_follows_one_block_until_it_is_durable(self) -> None:
        now, told = [10.0], list[float]()
        probe = Probe(lambda: now[0], told.append)
        lease = Lease("a", 0, Holder())
        probe.look()
        lease.number(3)
        probe.follow(lease)
        lease.number(2)
        lease.durable, now[0] = 2, 11.0
        probe.look()
        assert probe.lease is lease and told == []
        lease.durable, now[0] = 3, 12.5
        probe.look()
        assert probe.lease is None and told == [2.5]
        probe.look()
        assert told == [2.5]


class TestTimedDisk:
    def test_it_tells_of_each_sync(self, tmp_path: Path) -> None:
        told = list[float]()
        disk = TimedDisk(told.append)
        with (tmp_path / "file").open("wb") as file:
            disk.fdatasync(file.fileno())
        assert len(told) == 1 and told[0] > 0

    def test_one_that_fails_is_not_told(self) -> None:
        told = list[float]()
        reader, writer = os.pipe()
        try:
            with pytest.raises(OSError, match="Invalid argument"):
                TimedDisk(told.append).fdatasync(writer)
        finally:
            os.close(reader)
            os.close(writer)
        assert told == []
