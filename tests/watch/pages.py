"""A page as an operator starts it, what a program asks of it, and a browser that looks at it."""

import json
import re
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from ingest.layout import Layout
from tests.endtoend.listener import PATIENCE, TWISTD, wait_for

Browser = webdriver.Chrome
ANY_PAGE = "tcp:0:interface=127.0.0.1"


class Page:
    """A `twistd -n ingest-watch` process; leaving it stops it in good order.

    Attributes:
        url: where it is, with a slash at its end.
        pid: its process.
    """

    def __init__(self, data: Path, *options: str | Path, http: str = ANY_PAGE) -> None:
        """Start it and wait until it serves."""
        self._output = data.with_name(data.name + ".page.out")
        command: list[str | Path] = [
            TWISTD,
            "-n",
            "--pidfile=",
            "ingest-watch",
            "--data",
            data,
            "--http",
            http,
        ]
        with self._output.open("wb") as stream:
            self._process = subprocess.Popen(
                [*command, *options], stdout=stream, stderr=subprocess.STDOUT
            )
        self.pid = self._process.pid
        wait_for(self._has_started, "the page's start")
        found = re.search(r"the page is at (\S+)\n", self.output)
        assert found is not None
        self.url = found[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()

    def _has_started(self) -> bool:
        assert self._process.poll() is None, self.output
        return "the page is at " in self.output

    @property
    def output(self) -> str:
        """What it has written to standard output and standard error."""
        return self._output.read_text()

    def stop(self) -> None:
        """Stop it as an operator does."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        self._process.wait(PATIENCE)
        for word in ("Traceback", "Unhandled"):
            assert word not in self.output, self.output

    def kill(self) -> None:
        """End it as a lack of memory does."""
        self._process.kill()
        self._process.wait()

    def get(self, path: str, headers: Mapping[str, str] | None = None, **arguments: Any) -> Any:
        """Ask for JSON below `api/`, with success."""
        return json.loads(self.fetch(f"api/{path}", headers, **arguments)[1])

    def fetch(
        self, path: str, headers: Mapping[str, str] | None = None, **arguments: Any
    ) -> tuple[Mapping[str, str], bytes]:
        """Ask for anything, with success; return its headers and its body."""
        query = urlencode(arguments, doseq=True)
        request = urllib.request.Request(f"{self.url}{path}?{query}", headers=dict(headers or {}))
        with urllib.request.urlopen(request, timeout=PATIENCE, context=_TRUSTING) as response:
            return dict(response.headers), response.read()

    def refusal(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        **arguments: Any,
    ) -> tuple[int, str]:
        """Ask without success; return the status and what the error says."""
        request = urllib.request.Request(
            f"{self.url}{path}?{urlencode(arguments)}", headers=dict(headers or {}), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE, context=_TRUSTING) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read())["error"]

    def device(self, name: str) -> Any:
        """Ask for one device; one that is not known yet has nothing."""
        try:
            return self.get(f"devices/{quote(name)}")
        except HTTPError as error:
            with error:
                assert error.code == 404, error
            return {"state": None, "next": None, "fields": []}

    @contextmanager
    def tail(self, after: str = "", **arguments: Any) -> Iterator["Events"]:
        """Watch the log while the block lasts."""
        headers = {"Last-Event-ID": after} if after else {}
        request = urllib.request.Request(
            f"{self.url}api/tail?{urlencode(arguments)}", headers=headers
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            yield Events(response)


_TRUSTING = ssl.create_default_context()
_TRUSTING.check_hostname = False
_TRUSTING.verify_mode = ssl.CERT_NONE


class Events:
    """Server-sent events, as they come.

    Attributes:
        last_id: the id of the last one.
    """

    def __init__(self, response: Any) -> None:
        self.last_id = ""
        self._response = response

    def next(self) -> tuple[str, Any]:
        """Wait for an event; return its kind and its data."""
        kind, data = "message", None
        while True:
            line = self._response.readline().decode().rstrip("\n")
            name, _, value = line.partition(": ")
            match name:
                case "event":
                    kind = value
                case "id":
                    self.last_id = value
                case "data":
                    data = json.loads(value)
                case "" if data is not None:
                    return kind, data

    def lines(self, count: int) -> list[str]:
        """Wait for so many lines, and return those that came."""
        found: list[str] = []
        while len(found) < count:
            kind, data = self.next()
            assert kind == "lines", (kind, data)
            found += data
        return found


@contextmanager
def browser(width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[Browser]:
    """Run a headless Chromium while the block lasts; nothing may be wrong on its console."""
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver
        # That pixels are read so often is the tests' doing.
        said = [each for each in driver.get_log("browser") if each["source"] != "rendering"]
        assert not said, said
    finally:
        driver.quit()


def write_log(layout: Layout, records: Iterator[tuple[float, str, int, str]]) -> None:
    """Append records to the log as the listener spells them.

    Args:
        layout: the data folder.
        records: the time in seconds since 1970, the device, the number, and kind and value as JSON.
    """
    with (layout.log_folder / "ingest.log").open("a") as file:
        for time, device, seq, value in records:
            moment = datetime.fromtimestamp(time, UTC).replace(tzinfo=None)
            stamp = moment.isoformat(timespec="microseconds")
            file.write(f'{{"time":"{stamp}Z","device":"{device}","seq":{seq},{value}}}\n')
