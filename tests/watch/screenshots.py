"""The pictures of the page in deploy/OPERATING.md. `python -m tests.watch.screenshots` makes them.

Behind the page are a real listener and a fleet with a past of an hour. What may be made anew at
any time differs in its numbers and times; so the tests make all pictures too, and look at what the
page shows and not at its pixels.
"""

import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image
from selenium.webdriver.common.by import By

from ingest.client import Client
from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.layout import Layout
from tests.support.devices import TOKEN, TextDevice
from tests.support.listeners import Listener
from tests.support.waiting import wait_for
from tests.watch.pages import Browser, Page, browser, write_log

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "screenshots"
_PAST: Final = 3600  # seconds
_EVERY: Final = 1  # seconds between two frames of a device
_COLOURS: Final = 256
_TALLEST: Final = 1250  # pixels

RULES: Final = """
[[rule]]
name = "too hot"
devices = "boiler-*"
when = "temp > 80"
message = "{device} has {temp:.1f} degrees since {since}"

[[rule]]
name = "battery"
devices = "mast-*"
when = "battery < 20"
for = "10m"
"""


@dataclass(frozen=True)
class Shot:
    """One view of the page.

    Attributes:
        name: of its file.
        address: behind the page's own.
        shows: selectors of what must be there, with text that is seen.
        curves: whether a chart must be there.
        press: the text of a button that is pressed first; empty for none.
    """

    name: str
    address: str
    shows: tuple[str, ...]
    curves: bool = False
    press: str = ""


SHOTS: Final = (
    Shot("overview", "#/", (".word", ".reason", ".tile b", ".figures dd", ".alert"), curves=True),
    Shot("devices", "#/devices?sort=state", ("tbody td.name", "tbody td.error", ".pager")),
    Shot(
        "device",
        "#/device/boiler-2",
        (".why", ".facts dd", "figcaption", ".lines li"),
        curves=True,
    ),
    Shot("refused", "#/device/pump-7", (".why.bad", ".facts dd")),
    Shot(
        "curves",
        "#/plot?c=boiler-1%20temp&c=boiler-2%20temp&c=boiler-3%20temp",
        (".chips li", "tbody td"),
        curves=True,
    ),
    Shot("tail", "#/tail", (".lines li .rest",)),
    Shot("ask", "#/ask", ("textarea", ".result td"), press="Run"),
    Shot("alerts", "#/alerts", (".alert", ".events td")),
)


@dataclass(frozen=True)
class Look:
    """How a view is looked at.

    Attributes:
        width, height: of the window, in pixels.
        dark: whether the system is dark.
        suffix: of the names of its pictures.
    """

    width: int
    height: int
    dark: bool
    suffix: str


LOOKS: Final = (
    Look(1280, 800, False, ""),
    Look(1280, 800, True, "-dark"),
    Look(375, 812, False, "-phone"),
    Look(375, 812, True, "-phone-dark"),
)
SHOWN: Final = (
    "overview", "overview-dark", "devices", "refused", "device", "curves", "tail", "ask",
    "alerts", "overview-phone", "device-phone-dark",
)  # fmt: skip
"""The pictures that deploy/OPERATING.md has."""


# The fleet.

Reading = Callable[[float], str]


def _wave(middle: float, height: float, period: float, shift: float, noise: float) -> Reading:
    """Make something that goes up and down, as temperatures do: the same whenever it is begun."""
    begun = time.time()
    chance = random.Random(shift)

    def read(at: float) -> str:
        value = middle + height * math.sin(2 * math.pi * (at - begun) / period + shift)
        return f"{value + chance.gauss(0, noise):.2f}"

    return read


def _fleet() -> dict[str, dict[str, Reading]]:
    """Return the fields of each device."""
    fleet = {
        f"boiler-{number}": {
            "temp": _wave(66 + 9 * (number == 2), 9, 2700, number, 0.4),
            "bar": _wave(1.5, 0.1, 1300, number, 0.01),
        }
        for number in (1, 2, 3)
    }
    for number, place in enumerate(("north", "south")):
        fleet[f"mast-{place}"] = {
            "wind": _wave(7, 4, 1900, number, 0.9),
            "temp": _wave(11, 2, 7000, number, 0.1),
            "battery": _wave(88, 3, 9000, number, 0.05),
        }
    for number in range(1, 7):
        fleet[f"pump-{number}"] = {"flow": _wave(14 + number, 2, 800 + 99 * number, number, 0.3)}
    return fleet


def _frame(fields: dict[str, Reading], at: float) -> str:
    return " ".join(f"{name}={read(at)}" for name, read in fields.items())


class _Live(threading.Thread):
    """Lets the fleet push until it is ended."""

    def __init__(self, listener: Listener, fleet: dict[str, dict[str, Reading]]) -> None:
        super().__init__(daemon=True)
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        self._clients = [(Client(*address, name, TOKEN), fleet[name]) for name in fleet]
        self._ending = threading.Event()

    def run(self) -> None:
        while True:
            for client, fields in self._clients:
                client.send(_frame(fields, time.time()))
            if self._ending.wait(1.0):
                break
        for client, _ in self._clients:
            client.close()

    def end(self) -> None:
        self._ending.set()
        self.join()


def _write_past(layout: Layout, fleet: dict[str, dict[str, Reading]]) -> None:
    """Write the log of the hour before, as if the listener had been there."""
    begin = time.time() - _PAST
    write_log(
        layout,
        (
            (
                begin + step * _EVERY,
                name,
                step + 1,
                f'"text":"{_frame(fields, begin + step * _EVERY)}"',
            )
            for step in range(_PAST // _EVERY)
            for name, fields in fleet.items()
        ),
    )


@contextmanager
def scene(folder: Path) -> Iterator[Page]:
    """Run a listener, a fleet and the page while the block lasts.

    Args:
        folder: where their files may lie.
    """
    layout = Layout(folder / "data")
    layout.create()
    rules = folder / "rules.toml"
    rules.write_text(RULES)
    verifier = derive(TOKEN)
    fleet = _fleet()
    with Registry(layout.devices) as registry:
        registry.add_many((name, verifier, "") for name in fleet)
        registry.add_many([("pump-7", verifier, "Cellar, behind the stairs")])
        registry.add_many((f"meter-{number:03}", verifier, "") for number in range(1, 25))
        registry.set_enabled("meter-024", False)
    _write_past(layout, fleet)
    with Listener(layout.data) as listener:
        live = _Live(listener, fleet)
        live.start()
        try:
            with TextDevice(listener.addresses[0]) as stranger:
                stranger.send(stranger.plain("pump-7", "an old token"))
                assert stranger.last_words() == "auth-failed"
            with Page(layout.data, "--rules", rules) as page:
                wait_for(lambda: _is_complete(page, len(fleet)), "the fleet on the page")
                yield page
        finally:
            live.end()


def _is_complete(page: Page, devices: int) -> bool:
    if page.connected() != devices:
        return False
    status = page.get("status")
    states = status["states"]
    is_there = (states["online"], states["refused"], states["disabled"]) == (devices, 1, 1)
    return bool(is_there and status["alerts"] and status["listener"]["frames_per_s"] > 1)


# The pictures.


def take(driver: Browser, page: Page, shot: Shot, look: Look) -> bytes:
    """Open a view, wait until all of it is there, and return its picture as PNG.

    Raises:
        AssertionError: something of it does not come.
    """
    _resize(driver, look, look.height)
    driver.get("about:blank")
    driver.get(page.url + shot.address)
    if shot.press:
        wait_for(lambda: driver.find_elements(By.TAG_NAME, "button"), "the buttons")
        driver.find_element(By.XPATH, f"//main//button[text()='{shot.press}']").click()
    for selector in (*shot.shows, *((".chart canvas",) if shot.curves else ())):
        wait_for(lambda wanted=selector: _is_seen(driver, wanted), f"{shot.name}: {selector}")  # type: ignore[misc]
    tall = driver.execute_script("return document.documentElement.scrollHeight")
    _resize(driver, look, min(max(tall, look.height), _TALLEST))
    driver.execute_async_script(
        "const done = arguments[0], ended = () => document.getAnimations().map(a => a.finished);"
        " requestAnimationFrame(() => requestAnimationFrame(() =>"
        " Promise.allSettled(ended()).then(() => requestAnimationFrame(done))));"
    )
    return _smaller(driver.get_screenshot_as_png())


def _resize(driver: Browser, look: Look, height: int) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": look.width, "height": height, "deviceScaleFactor": 1, "mobile": look.width < 600},
    )


def _is_seen(driver: Browser, selector: str) -> bool:
    """Tell whether elements are there, have an extent, and text if they may have any."""
    script = """
        const found = [...document.querySelectorAll(arguments[0])];
        return found.some(e => e.getClientRects().length && (e.innerText || e.value || e.width));"""
    return bool(driver.execute_script(script, selector))


def _smaller(picture: bytes) -> bytes:
    """Keep few colours: text and curves have no more, and the repository is to stay small."""
    out = BytesIO()
    with Image.open(BytesIO(picture)) as image:
        few = image.convert("RGB").quantize(_COLOURS, kmeans=1, dither=Image.Dither.NONE)
        few.save(out, "PNG", optimize=True)
    return out.getvalue()


def take_all(page: Page, folder: Path, look: Look) -> list[Path]:
    """Make the pictures of all views in one look; return their files."""
    made = []
    with browser(look.width, look.height, dark=look.dark) as driver:
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        for shot in SHOTS:
            path = folder / f"{shot.name}{look.suffix}.png"
            path.write_bytes(take(driver, page, shot, look))
            made.append(path)
    return made


def main() -> None:
    """Make the pictures of OPERATING.md anew, or all of them in a folder that is named."""
    everything = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with TemporaryDirectory() as temporary:
        folder = everything or Path(temporary) / "pictures"
        folder.mkdir(exist_ok=True)
        with scene(Path(temporary)) as page:
            made = [path for look in LOOKS for path in take_all(page, folder, look)]
        if everything is None:
            FOLDER.mkdir(exist_ok=True)
            for path in made:
                if path.stem in SHOWN:
                    (FOLDER / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
