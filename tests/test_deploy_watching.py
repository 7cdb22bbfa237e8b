"""What in `deploy/` watches a listener or runs it in a container, tried on a running one."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import kubernetes_validate
import pytest
import yaml

from ingest.service.parts import DRAIN
from ingest.service.tap import Options
from tests.support.devices import TextDevice
from tests.support.listeners import Listener
from tests.support.processes import free_port, run
from tests.support.waiting import PATIENCE, wait_for
from tests.test_deploy import DEPLOY, needs, settings

PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = DEPLOY / "grafana" / "ingest.json"
MANIFESTS = DEPLOY / "kubernetes" / "ingest.yaml"
DOCKERFILE = DEPLOY / "Dockerfile"

_METRIC = re.compile(r"\b(?:ingest|process)_[a-z_]+(?=[{\[ )]|$)")


def get(port: int, path: str) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
    assert response.status == 200, text
    return text


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Listener, int]]:
    """A listener that has seen something of everything, and its HTTP port."""
    port = free_port()
    http = f"tcp:{port}:interface=127.0.0.1"
    with Listener(tmp_path_factory.mktemp("scraped") / "data", "--http", http) as listener:
        listener.add("sensor-1")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("sensor-1")
            device.push_all("a", "b", last=2)
            device.send(b"x" * 70_000)
            assert device.last_words() == "frame-too-long"
        yield listener, port


def existing(port: int) -> set[str]:
    lines = get(port, "/metrics").splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


def expressions_of_the_dashboard() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    found += [each["definition"] for each in board["templating"]["list"] if "definition" in each]
    return found


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "ingest.rules.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def metrics_in(expression: str) -> set[str]:
    return set(_METRIC.findall(re.sub(r'"[^"]*"', '""', expression)))


def test_dashboard_and_alerts_use_metrics_that_exist(scraped: tuple[Listener, int]) -> None:
    expressions = expressions_of_the_dashboard() + [alert["expr"] for alert in alerts()]
    used = [metrics_in(re.sub(r"label_values\((\w+), \w+\)", r"\1", each)) for each in expressions]
    assert all(used[index] for index, each in enumerate(expressions) if not each.startswith("up"))
    assert set().union(*used) - existing(scraped[1]) == set()


def test_the_dashboard_shows_every_metric_of_the_listener(scraped: tuple[Listener, int]) -> None:
    shown = set().union(*map(metrics_in, expressions_of_the_dashboard()))
    ours = {re.sub(r"_(bucket|sum|count)$", "_bucket", name) for name in existing(scraped[1])}
    rarely = {"ingest_oldest_silence_seconds", "ingest_waiting_frames"}
    assert {name for name in ours if name.startswith("ingest_")} - shown == rarely


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))


# Prometheus


@needs("promtool")
def test_promtool_takes_rules_and_configuration() -> None:
    for command in (
        ("check", "rules", PROMETHEUS / "ingest.rules.yml"),
        ("check", "config", PROMETHEUS / "prometheus.yml"),
        ("test", "rules", PROMETHEUS / "ingest.rules.test.yml"),
    ):
        checked = run("promtool", *command)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_tested_and_explained() -> None:
    names = {alert["alert"] for alert in alerts()}
    tests = yaml.safe_load((PROMETHEUS / "ingest.rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert fired == names
    text = (DEPLOY / "OPERATING.md").read_text()
    explained = set(re.findall(r"^\| `(Ingest\w+)`", text, re.MULTILINE))
    assert explained == names


@needs("prometheus")
def test_a_real_prometheus_scrapes_it(scraped: tuple[Listener, int], tmp_path: Path) -> None:
    _, port = scraped
    text = (PROMETHEUS / "prometheus.yml").read_text()
    for old, new in {"127.0.0.1:7680": f"127.0.0.1:{port}", "15s": "200ms"}.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "prometheus.yml").write_text(text)
    shutil.copy(PROMETHEUS / "ingest.rules.yml", tmp_path)
    own = free_port()
    command = [
        "prometheus", f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address=127.0.0.1:{own}",
    ]  # fmt: skip
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=tmp_path)

    def value(query: str) -> str | None:
        try:
            found = json.loads(get(own, f"/api/v1/query?query={quote(query)}"))
        except (OSError, AssertionError):  # not there yet
            return None
        results = found["data"]["result"]
        return results[0]["value"][1] if results else None

    try:
        wait_for(lambda: value('up{job="ingest"}') == "1", "the first scrape")
        assert value("ingest_received_frames_total") == "3"
        assert value('ingest_refused_frames_total{reason="frame-too-long"}') == "1"
        assert value("ingest_disk_free_bytes > 0") is not None
        assert value("histogram_quantile(0.99, ingest_fsync_duration_seconds_bucket) > 0")
        rules = json.loads(get(own, "/api/v1/rules"))["data"]["groups"][0]["rules"]
        assert len(rules) == len(alerts())
    finally:
        process.terminate()
        process.wait(PATIENCE)


# Containers


def instructions() -> dict[str, str]:
    """Return the instructions of the last stage, the last of each kind, without its options."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    return dict(re.findall(r"^([A-Z]+) (.*)$", last, re.MULTILINE))


def test_the_image_runs_and_tells_its_health(tmp_path: Path) -> None:
    image = instructions()
    entry, options = json.loads(image["ENTRYPOINT"]), json.loads(image["CMD"])
    assert entry[-2:] == ["--data", "/var/lib/ingest"] and entry[0] == "twistd"
    port = free_port()
    options[options.index("--http") + 1] = f"tcp:{port}:interface=127.0.0.1"
    data = tmp_path / "data"
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "INGEST_DATA": str(data),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    health = image["HEALTHCHECK"].partition(" CMD ")[2]

    def is_healthy() -> int:
        return subprocess.run(
            ["sh", "-c", health], env=environment, capture_output=True, check=False
        ).returncode

    assert is_healthy() == 1, "nothing runs"
    process = subprocess.Popen(
        [*entry[:-1], str(data), *options, "--listen", "tcp:0:interface=127.0.0.1"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: is_healthy() == 0, "health")
    finally:
        process.terminate()
        process.wait(PATIENCE)
    assert image["USER"] == "7650:7650" and image["VOLUME"] == "/var/lib/ingest"


def manifests() -> list[dict[str, Any]]:
    return [*yaml.safe_load_all(MANIFESTS.read_text())]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_the_manifests(version: str) -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_manifests_agree_with_the_listener_and_the_image() -> None:
    stateful, service, http = manifests()
    pod = stateful["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = Options()
    options.parseOptions(container["args"])
    assert options.settings.http and options.settings.http_token_file
    folder = container["volumeMounts"][1]["mountPath"]
    assert options.settings.http_token_file.parent == Path(folder)
    user = instructions()["USER"].partition(":")[0]
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["terminationGracePeriodSeconds"] > DRAIN + 5
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"ingest": 7650, "http": int(options.settings.http.rpartition(":")[2])}
    for each in (service, http):
        assert each["spec"]["selector"] == stateful["spec"]["selector"]["matchLabels"]
        assert each["spec"]["ports"][0]["targetPort"] in ports


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_the_probes_are_answered(scraped: tuple[Listener, int], probe: str) -> None:
    (container,) = manifests()[0]["spec"]["template"]["spec"]["containers"]
    assert get(scraped[1], container[probe]["httpGet"]["path"]) == "ok\n"


def test_the_unit_listens_as_prometheus_asks() -> None:
    start = shlex.split(settings(DEPLOY / "ingest.service")["ExecStart"])
    host = start[start.index("--http") + 1]
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert host == "tcp:7680:interface=127.0.0.1"
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:7680"]
