"""`ingest demo` with a real listener."""

import os
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ingest.bench import local
from ingest.cli import common, demo, main
from tests.support.processes import INGEST


def test_the_totals_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (checkout, checkout / "plugins")))
    monkeypatch.setenv("PYTHONPATH", path)
    result = CliRunner().invoke(main, ["demo", "--for", "3s"])
    assert result.exit_code == 0, result.output
    assert re.search(
        r'"device":"boiler","seq":1,"data":\{"temp":[0-9.]+,"bar":1.4\}', result.output
    )
    assert re.search(r"\n(\d+) frames sent, \1 acknowledged, \1 lines in the log\n", result.output)
    assert re.search(r"\nLook at it: http://127\.0\.0\.1:\d+/\n", result.output)
    for device in ("thermometer", "power-meter", "front-door", "boiler"):
        assert f'"device":"{device}","seq":1,' in result.output


@pytest.mark.parametrize("is_active", [True, False])
def test_what_it_says_can_be_pasted_where_no_venv_is_active(
    is_active: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """README starts it as .venv/bin/ingest."""
    monkeypatch.setattr("sys.argv", [str(INGEST), "demo"])
    monkeypatch.setenv("PATH", str(INGEST.parent) if is_active else "/nowhere")
    assert demo._called() == ("ingest" if is_active else str(INGEST))


def test_without_the_packages_of_the_page_it_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(common, "WATCH_PACKAGES", ("no_such_package",))
    result = CliRunner().invoke(main, ["demo", "--for", "1s"])
    assert result.exit_code == 0, result.output
    assert "needs more packages: pip install 'ingest[watch]'\n" in result.output


def test_a_listener_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = (sys.executable, "-c", "print('no such plugin'); raise SystemExit(1)")
    monkeypatch.setattr(local, "_TWISTD", failing)
    result = CliRunner().invoke(main, ["demo"])
    assert result.output == (
        "Error: the listener did not start; the end of its output:\nno such plugin\n"
    )
    assert result.exit_code == 1


def test_a_duration_that_is_none() -> None:
    result = CliRunner().invoke(main, ["demo", "--for", "soon"])
    assert "'soon' is not a duration" in result.output
    assert result.exit_code == 2
