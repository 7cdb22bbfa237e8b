"""The files that twistd itself writes."""

from pathlib import Path
from typing import Any, cast

import pytest
from twisted.python import usage
from twisted.scripts._twistd_unix import ServerOptions

from ingest.ops.twistd import settle_files


def _options(**given: Any) -> usage.Options:
    options = cast(usage.Options, ServerOptions())
    options.update(given)
    return options


def test_in_the_foreground_there_is_no_pid_file() -> None:
    options = _options(nodaemon=True)
    settle_files(options)
    assert not options["pidfile"]


def test_a_pid_file_that_is_wanted_stays(tmp_path: Path) -> None:
    for nodaemon in (True, False):
        options = _options(nodaemon=nodaemon, pidfile=str(tmp_path / "pid"), logfile="-")
        settle_files(options)
        assert options["pidfile"] == str(tmp_path / "pid")


@pytest.mark.parametrize("option", ["pidfile", "logfile"])
def test_what_cannot_be_written_is_said(tmp_path: Path, option: str) -> None:
    given = {"pidfile": "", "logfile": "-", option: str(tmp_path / "missing" / "file")}
    with pytest.raises(usage.UsageError, match=rf"--{option}.*there is no folder"):
        settle_files(_options(nodaemon=True, **given))
    given[option] = str(tmp_path)  # which nobody can write, root included
    with pytest.raises(usage.UsageError, match=r"it can.t be written.*run in the foreground"):
        settle_files(_options(nodaemon=False, **given))


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(usage.UsageError, match="--rundir"):
        settle_files(_options(nodaemon=True, rundir=str(tmp_path / "missing")))


def test_a_log_that_goes_elsewhere_is_not_looked_for(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing" / "file")
    settle_files(_options(nodaemon=True, logfile=missing, syslog=True))
