"""A disk that is full: whoever is asked says so, and says so no longer when there is room."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.endtoend.test_ops import fill, get, metrics, port_of, small_disk
from tests.support.devices import TextDevice
from tests.support.listeners import Listener
from tests.support.processes import INGEST, free_port, run
from tests.support.waiting import PATIENCE, wait_for
from tests.test_deploy import DEPLOY, needs
from tests.watch.pages import Page, browser
from tests.watch.test_browser import go, texts

RULES = DEPLOY / "prometheus" / "ingest.rules.yml"


class Prometheus:
    """A real Prometheus that scrapes a listener five times a second, with the alerts of deploy/."""

    def __init__(self, port: int) -> None:
        self._port = port

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        query = urlencode({"query": 'ALERTS{alertstate="firing"}'})
        with urlopen(f"http://127.0.0.1:{self._port}/api/v1/query?{query}") as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return {each["metric"]["alertname"] for each in result}

    def is_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/-/ready"):
                return True
        except OSError:
            return False


@contextmanager
def prometheus(folder: Path, scraped: int) -> Iterator[Prometheus]:
    """Run a Prometheus while the block lasts; its alerts do not wait for minutes."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(
        "global: {evaluation_interval: 200ms}\n"
        + text.replace("127.0.0.1:7680", f"127.0.0.1:{scraped}").replace("15s", "200ms")
    )
    rules = RULES.read_text().replace("for: 1m", "for: 0s")
    (folder / RULES.name).write_text(rules)
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.out").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        asked = Prometheus(port)
        wait_for(asked.is_ready, "Prometheus")
        yield asked
    finally:
        process.terminate()
        process.wait(PATIENCE)


@needs("prometheus")
def test_page_health_metrics_alerts_and_status_agree(tmp_path: Path) -> None:
    options = ("--http", "tcp:0:interface=127.0.0.1")
    with (
        small_disk(tmp_path / "disk") as disk,
        Listener(disk / "data", *options, output=tmp_path / "output") as listener,
        prometheus(tmp_path, port_of(listener)) as watching,
        Page(disk / "data", output=tmp_path / "page.out") as page,
        browser() as driver,
    ):
        port, ballast = port_of(listener), disk / "ballast"
        listener.add("writer")

        def status() -> tuple[int, str]:
            told = run(INGEST, "--data", listener.data, "status")
            return told.returncode, told.stdout

        def alerts() -> set[str]:
            return watching.firing() & {"IngestNotReady", "IngestTrouble"}

        go(driver, page, "#/")
        wait_for(lambda: texts(driver, ".word") == ["● ok"], "all to be well")
        assert get(port, "/healthz") == (200, "ok\n")
        assert status()[0] == 0
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("writer")
            device.push_all("before", last=1)
            well = page.get("status")["time"]
            fill(ballast)
            device.push(*["x" * 1000] * 100)
            wait_for(lambda: get(port, "/healthz")[0] == 503, "the disk to be full")

            reason = "No space left on device"
            assert get(port, "/healthz") == (503, f"disk-failing: {reason}\n")
            assert metrics(port)["ingest_trouble{kind=disk-failing}"] == 1
            assert metrics(port)["ingest_ready"] == 0
            code, text = status()
            assert (code, f"disk-failing ({reason})" in text) == (2, True), text
            wait_for(lambda: page.get("status")["health"] == "disk-failing", "the page")
            assert page.get("status")["reason"] == reason
            assert page.get("status")["since"] > well
            assert page.get("status")["listener"]["disk_full_in_s"] == 0
            wait_for(lambda: texts(driver, ".word") == ["✕ disk-failing"], "what is seen")
            assert texts(driver, "#banner") == [f"disk-failing: {reason}"]
            wait_for(lambda: "takes no records" in page.device("writer")["why"], "the reason")
            wait_for(lambda: alerts() == {"IngestNotReady", "IngestTrouble"}, "the alerts")

            ballast.unlink()
            device.wait_for_ack(101)
            wait_for(lambda: get(port, "/healthz") == (200, "ok\n"), "the health")
            wait_for(lambda: page.get("status")["health"] == "ok", "the page")
            wait_for(lambda: texts(driver, ".word") == ["● ok"], "what is seen")
            assert texts(driver, "#banner") in ([""], [])
            assert metrics(port)["ingest_ready"] == 1
            assert status()[0] == 0
            wait_for(lambda: alerts() == set(), "the end of the alerts")
        wait_for(lambda: page.device("writer")["next"] == 102, "the frames on the page")
        assert page.get("status")["watcher"]["trouble"] == ""
