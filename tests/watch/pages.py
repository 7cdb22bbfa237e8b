"""A page as an operator starts it, what a program asks of it, and a browser that looks at it."""

import json
import re
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from ingest.layout import Layout
from tests.support.processes import USUAL, Program, twistd
from tests.support.waiting import PATIENCE

Browser = webdriver.Chrome
ANY_PAGE = "tcp:0:interface=127.0.0.1"


class Page(Program):
    """A `twistd -n ingest-watch` process.

    Attributes:
        url: where it is, with a slash at its end.
    """

    ready = r"the page is at (\S+)\n"
    url: str

    def __init__(
        self,
        data: Path,
        *options: str | Path,
        http: str = ANY_PAGE,
        under: tuple[str | Path, ...] = (),
        pauses: Mapping[str, float] = USUAL,
        output: Path | None = None,
    ) -> None:
        """Describe it; entering its block, or `start`, runs it.

        Args:
            data: the data folder.
            options: of `twistd ingest-watch`, besides the next.
            http: where it is.
            under: a command that runs it as its own process, such as env.
            pauses: those that are shorter than usual; see `twistd`.
            output: where what it says goes; beside `data` by default.
        """
        command = [*under, *twistd(pauses), "-n", "--pidfile=", "ingest-watch", "--data", data]
        command += ["--http", http, *options]
        super().__init__(command, output or data.with_name(data.name + ".page.out"))

    def start(self) -> None:
        """Start it, and wait until it serves."""
        super().start()
        found = re.search(self.ready, self.newest_output())
        assert found is not None
        self.url = found[1]

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

    def connected(self) -> int:
        """Ask how many devices the listener says are connected."""
        listener = self.get("status")["listener"]
        return int(listener["devices_connected"]) if listener else 0

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
