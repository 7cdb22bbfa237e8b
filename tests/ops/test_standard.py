"""A process whose standard streams are closed."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.processes import run_tool

_NAMES = """
import json, os, sys
from ingest.ops.standard import keep_standard_streams
keep_standard_streams()
names = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]
with open(sys.argv[1], "w") as report:
    json.dump(names, report)
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_what_is_closed_is_dev_null_and_all_else_stays(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    report, other = tmp_path / "report", tmp_path / "other"
    streams = " ".join(f"{fd}>&-" if fd in closed else f"{fd}>{other}" for fd in range(3))
    run_tool("sh", "-c", f'"$0" -c "$1" "$2" {streams}', sys.executable, _NAMES, report)
    expected = [os.devnull if fd in closed else str(other) for fd in range(3)]
    assert json.loads(report.read_text()) == expected
