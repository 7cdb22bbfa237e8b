"""The page in a real Chromium, with a real listener and devices that mean no good behind it."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from ingest.client import Client
from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from tests.support.devices import TOKEN, TextDevice
from tests.support.listeners import Listener
from tests.support.waiting import wait_for
from tests.watch.pages import Browser, Page, browser

HOSTILE: dict[str, object] = {
    "<img src=x onerror=document.title='owned'>": 1.5,
    "</script><script>document.title='owned'</script>": 2.5,
    "\u202eevil": 3.5,
    "javascript:alert(1)": 4.5,
    "__proto__": 5.5,
    "constructor": 6.5,
    "$x_1^2$": 7.5,
    "text": "<svg onload=document.title='owned'>\x1b[31m\u2028\u0000",
}
NOTE = "<b onmouseover=document.title='owned'>bold</b>"


class Pusher(threading.Thread):
    """A device that pushes a reading four times a second."""

    def __init__(self, listener: Listener, name: str, read: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        self._client = Client(*address, name, TOKEN, dialect="msgpack")
        self._read = read
        self._ending = threading.Event()

    def run(self) -> None:
        with self._client as client:
            while not self._ending.wait(0.25):
                client.send(self._read())

    def end(self) -> None:
        self._ending.set()
        self.join()


def reading(seconds: float) -> dict[str, float]:
    """Return what a device reads; the span of the second field is beyond the greatest number."""
    return {"temp": 20 + seconds % 5, "huge": 1.7e308 if seconds % 2 < 1 else -1.7e308}


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with Listener(tmp_path_factory.mktemp("browser") / "data") as running:
        running.add("good", "off", "never", "broken")
        verifier = derive(TOKEN)
        with Registry(running.layout.devices) as registry:
            registry.add_many([("hostile", verifier, NOTE)])
            registry.add_many((f"fleet-{number:05}", verifier, "") for number in range(10_000))
            registry.set_enabled("off", False)
        begun = time.monotonic()
        pushers = [
            Pusher(running, "good", lambda: reading(time.monotonic() - begun)),
            Pusher(running, "hostile", lambda: HOSTILE),
        ]
        for pusher in pushers:
            pusher.start()
        yield running
        for pusher in pushers:
            pusher.end()


@pytest.fixture(scope="module")
def page(listener: Listener) -> Iterator[Page]:
    with Page(listener.data) as running:
        wait_for(lambda: running.connected() == 2, "the devices")
        wait_for(lambda: running.get("status")["states"]["online"] == 2, "their states")
        wait_for(lambda: running.get("status")["devices"] == 10_005, "the registry")
        yield running


@pytest.fixture(scope="module")
def desk(page: Page) -> Iterator[Browser]:
    with browser() as driver:
        yield driver


def go(driver: Browser, page: Page, address: str) -> None:
    """Open a view as if its address was typed, and wait for its title."""
    driver.get("about:blank")
    driver.get(page.url + address)
    wait_for(lambda: texts(driver, "h1"), "the view")


def texts(driver: Browser, selector: str) -> list[str]:
    """Return the text of elements, as it is seen."""
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
    found: list[str] = driver.execute_script(script, selector)
    return found


def seen(driver: Browser) -> str:
    return "\n".join(texts(driver, "body"))


def painted(driver: Browser, selector: str = ".chart canvas") -> int:
    """Count the pixels of a chart that have the colour of its first curve, or nearly."""
    script = """
        const canvas = document.querySelector(arguments[0]);
        if (!canvas || !canvas.width) return 0;
        const probe = document.createElement("canvas").getContext("2d");
        const root = getComputedStyle(document.documentElement);
        probe.fillStyle = root.getPropertyValue("--curve-1").trim();
        probe.fillRect(0, 0, 1, 1);
        const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let count = 0;
        for (let at = 0; at < data.length; at += 4) {
            const near = [r, g, b].every((part, i) => Math.abs(data[at + i] - part) < 9);
            if (data[at + 3] > 200 && near) count++;
        }
        return count;"""
    found: int = driver.execute_script(script, selector)
    return found


def contrast(driver: Browser, selector: str) -> float:
    """Return the contrast of an element's text with what is behind it (WCAG 2.2)."""
    script = """
        const rgb = text => text.match(/[0-9.]+/g).map(Number);
        let element = document.querySelector(arguments[0]);
        const ink = rgb(getComputedStyle(element).color);
        let ground = [255, 255, 255];
        for (; element; element = element.parentElement) {
            const found = rgb(getComputedStyle(element).backgroundColor);
            if (found.length < 4 || found[3] === 1) { ground = found; break; }
        }
        const linear = v => v <= 10.3 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
        const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
        const [a, b] = [light(ink), light(ground)];
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);"""
    found: float = driver.execute_script(script, selector)
    return found


def test_the_overview_says_in_one_word_how_it_is(desk: Browser, page: Page) -> None:
    def is_shown(tile: str) -> bool:
        return tile in texts(desk, ".tile")

    go(desk, page, "#/")
    wait_for(lambda: texts(desk, ".word") == ["● ok"], "the health")
    for tile in ("2\n● online", "1\n– disabled"):
        wait_for(partial(is_shown, tile), tile)
    wait_for(lambda: painted(desk) > 100, "the curve of frames a second")
    assert "2 devices connected" in texts(desk, ".reason")[0]


def test_the_table_of_devices_is_searched_and_sorted(desk: Browser, page: Page) -> None:
    go(desk, page, "#/devices")
    wait_for(lambda: "10,005 devices" in seen(desk), "the table")
    assert len(texts(desk, "tbody tr")) == 50
    search = desk.find_element(By.CSS_SELECTOR, "input[type=search]")
    search.send_keys("fleet-0999")
    wait_for(lambda: "10 devices" in seen(desk), "the search")
    search.send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
    wait_for(lambda: "10,005 devices" in seen(desk), "the whole table")
    desk.find_element(By.XPATH, "//thead//button[text()='Next no.']").click()
    wait_for(
        lambda: texts(desk, "tbody td.name")[0].split("\n")[0] in ("good", "hostile"), "the order"
    )
    heads = desk.find_elements(By.CSS_SELECTOR, "th[aria-sort=descending]")
    assert [each.text.split()[0] for each in heads] == ["Next"]
    desk.find_element(By.CSS_SELECTOR, "option[value=disabled]").click()
    wait_for(lambda: texts(desk, "tbody td.name") == ["off"], "the filter")


def test_what_is_selected_in_the_table_stays_so(desk: Browser, page: Page) -> None:
    go(desk, page, "#/devices?q=good")
    wait_for(lambda: "good" in texts(desk, "tbody td.name"), "the table")
    desk.execute_script("getSelection().selectAllChildren(document.querySelector('td.name a'))")
    before = texts(desk, "tbody td.next")
    wait_for(lambda: texts(desk, "tbody td.next") != before, "the next answer")
    assert desk.execute_script("return getSelection().toString()") == "good"


def test_the_table_of_devices_is_paged_by_keyboard(desk: Browser, page: Page) -> None:
    def where() -> str:
        return texts(desk, ".pager span")[0]

    go(desk, page, "#/devices?sort=name&q=fleet-")
    wait_for(lambda: where() == "1 of 200", "the first page")
    assert texts(desk, "tbody td.name")[0] == "fleet-00000"
    desk.find_element(By.XPATH, "//button[text()='Next ›']").send_keys(Keys.ENTER)
    wait_for(lambda: where() == "2 of 200", "the second page")
    assert texts(desk, "tbody td.name")[0] == "fleet-00050"
    desk.switch_to.active_element.send_keys(Keys.ENTER)
    wait_for(lambda: where() == "3 of 200", "the third page: the button keeps the focus")
    desk.find_element(By.XPATH, "//button[text()='‹ Previous']").send_keys(Keys.SPACE)
    wait_for(lambda: where() == "2 of 200", "the way back")
    assert "page=2" in desk.current_url, "so that it can be kept"


def test_the_table_begins_with_those_that_need_somebody(desk: Browser, page: Page) -> None:
    go(desk, page, "#/devices?sort=state")
    wait_for(lambda: texts(desk, "tbody td.state"), "the table")
    shown = [each.split()[-1] for each in texts(desk, "tbody td.state")]
    order = ["refused", "failing", "silent", "online", "disabled"]
    assert shown == sorted(shown, key=order.index)
    go(desk, page, "#/devices?sort=-state")
    wait_for(lambda: "off" in texts(desk, "tbody td.name"), "the other end")


def test_a_device_has_a_curve_of_every_number(desk: Browser, page: Page) -> None:
    go(desk, page, "#/device/good")
    wait_for(lambda: texts(desk, ".why") == ["It is delivering."], "why")
    wait_for(lambda: "temp" in seen(desk), "the field")
    wait_for(lambda: painted(desk) > 100, "the curve")
    wait_for(lambda: any('"temp"' in line for line in texts(desk, ".lines li")), "its lines")
    assert "temp" in str(desk.find_element(By.CSS_SELECTOR, ".plot").get_attribute("aria-label"))
    wait_for(lambda: painted(desk, ".chart:nth-child(2) canvas") > 50, "the curve of huge numbers")
    assert texts(desk, "figcaption")[1].startswith("huge ")
    assert "1.7e+308" in texts(desk, "figcaption")[1]


def test_nothing_that_a_device_sends_is_more_than_text(desk: Browser, page: Page) -> None:
    for address in ("#/device/hostile", "#/devices?q=hostile", "#/tail?device=hostile", "#/"):
        go(desk, page, address)
        if address != "#/":
            wait_for(lambda: "onerror" in seen(desk) or "onmouseover" in seen(desk), address)
    go(desk, page, "#/device/hostile")
    fields = [name for name, value in HOSTILE.items() if isinstance(value, float)]
    wait_for(lambda: len(texts(desk, "figcaption")) == len(fields), "its curves")
    shown = seen(desk)
    assert "<img src=x onerror=document.title='owned'>" in shown
    assert "\\u202eevil" in shown
    assert "\u202e" not in shown
    wait_for(lambda: painted(desk) > 100, "the curve of the hostile field")
    desk.find_element(By.CSS_SELECTOR, "figcaption a").click()
    wait_for(lambda: "Drag to zoom in" in seen(desk), "the plot of it")
    assert (
        desk.find_elements(
            By.CSS_SELECTOR, "main img, main svg:not(.key), main script, main b[onmouseover]"
        )
        == []
    )
    assert "owned" not in desk.title


@pytest.mark.parametrize(
    "name", ["<script>x</script>", "..%2f..%2fetc", "%", "a/b", "__proto__", "\u202e", "'\"><x>"]
)
def test_names_that_no_device_may_have_are_shown_as_text(page: Page, name: str) -> None:
    with browser() as driver:
        driver.get(page.url + "#/device/" + quote(name, safe="%"))
        wait_for(lambda: "is known" in seen(driver), "the answer")
        assert driver.find_elements(By.CSS_SELECTOR, "main script, main x") == []
        driver.get_log("browser")  # a 404 is said there, which is right


def test_why_a_device_is_not_delivering(desk: Browser, page: Page, listener: Listener) -> None:
    go(desk, page, "#/device/off")
    wait_for(lambda: "ingest device enable off" in seen(desk), "the reason")
    go(desk, page, "#/device/never")
    wait_for(lambda: "It has never connected" in seen(desk), "the reason")
    with TextDevice(listener.addresses[0]) as device:
        device.send(device.plain("broken", "wrong token"))
        assert device.last_words() == "auth-failed"
    go(desk, page, "#/device/broken")
    wait_for(lambda: "ingest device new-token broken" in seen(desk), "the reason")
    assert ", from 127.0.0.1" in seen(desk)
    wait_for(lambda: "✕ refused" in seen(desk), "the state")
    with TextDevice(listener.addresses[0]) as device:
        device.send(device.plain("misspelt", TOKEN))
        assert device.last_words() == "auth-failed"
    go(desk, page, "#/")
    wait_for(lambda: "a name that is not registered, a wrong token" in seen(desk), "what it says")
    wait_for(lambda: desk.find_elements(By.LINK_TEXT, "misspelt"), "the name that nobody has")
    desk.find_element(By.LINK_TEXT, "misspelt").click()
    wait_for(lambda: "ingest device add misspelt" in seen(desk), "the reason")
    assert texts(desk, ".why.bad"), "it is no good news"
    desk.back()
    desk.get_log("browser")  # a 404 is said there, which is right


def test_several_devices_on_one_plot(desk: Browser, page: Page) -> None:
    go(desk, page, "#/plot")
    device, field = (
        desk.find_element(By.CSS_SELECTOR, each) for each in ("form input", "form select")
    )

    def has_field(wanted: str) -> bool:
        return wanted in texts(desk, "form option")

    for name, wanted in (("good", "temp"), ("hostile", "$x_1^2$")):
        device.clear()
        device.send_keys(name)
        wait_for(partial(has_field, wanted), "the fields")
        field.find_element(By.XPATH, f"option[text()='{wanted}']").click()
        desk.find_element(By.CSS_SELECTOR, "form button").click()
    wait_for(lambda: len(texts(desk, "main tbody tr")) == 2, "both curves")
    wait_for(lambda: painted(desk) > 50, "the curve")
    links = [str(each.get_attribute("href")) for each in desk.find_elements(By.LINK_TEXT, "CSV")]
    assert "format=csv" in links[0]
    before = texts(desk, "main tbody tr")[0].split("\t")[0]
    assert before.startswith("good temp")
    desk.find_element(By.XPATH, "//button[text()='+']").click()
    link = str(desk.find_element(By.LINK_TEXT, "CSV").get_attribute("href"))
    asked = parse_qs(urlsplit(link).query)
    assert float(asked["to"][0]) - float(asked["from"][0]) == pytest.approx(1800)
    wait_for(lambda: "The last 30 min, live" in seen(desk), "the zoom")
    assert desk.find_elements(By.CSS_SELECTOR, "[aria-busy]") == []
    desk.find_element(By.XPATH, "//button[text()='Back']").click()
    wait_for(lambda: "The last 1 h, live" in seen(desk), "the way back")


def test_a_curve_of_one_point_is_seen_beside_a_long_one(
    desk: Browser, page: Page, listener: Listener
) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in("fleet-00042")
        device.push_all("temp=24.5", last=1)
    wait_for(lambda: page.device("good")["next"] > 80, "more points than are marked each")
    now = time.time()
    curves = "c=fleet-00042%20temp&c=good%20temp"
    go(desk, page, f"#/plot?{curves}&from={now - 60:.3f}&to={now:.3f}")
    wait_for(lambda: "1 value\t" in seen(desk), "both curves")
    wait_for(lambda: painted(desk) > 4, "the point, which has the first colour")


def test_dragging_zooms_into_the_log(desk: Browser, page: Page) -> None:
    go(desk, page, "#/plot?c=good%20temp&span=60")
    wait_for(lambda: painted(desk) > 50, "the curve")
    over = desk.find_element(By.CSS_SELECTOR, ".u-over")
    width = over.size["width"]
    actions = ActionChains(desk)
    actions.move_to_element_with_offset(over, width // 4, 0).click_and_hold()
    actions.move_to_element_with_offset(over, width // 2 - 5, 0).release().perform()
    wait_for(lambda: "from=" in desk.current_url, "the part")
    wait_for(lambda: "UTC to " in seen(desk), "its curve")


def test_a_tail_stops_when_it_is_scrolled_and_loses_nothing(
    desk: Browser, page: Page, listener: Listener
) -> None:
    go(desk, page, "#/tail?device=good")
    wait_for(lambda: len(texts(desk, ".lines li")) > 30, "the lines")
    lines = "const l = document.querySelector('.lines');"
    script = lines + "l.scrollTop = arguments[0] ? l.scrollHeight : 0"
    wait_for(
        lambda: desk.execute_script(lines + "return l.scrollHeight > l.clientHeight + 100"),
        "lines to scroll",
    )
    desk.execute_script(script, False)
    wait_for(lambda: "stopped" in seen(desk), "the stop")
    kept = len(texts(desk, ".lines li"))
    behind = len(listener.lines("good"))
    wait_for(lambda: len(listener.lines("good")) > behind + 5, "frames that come meanwhile")
    assert len(texts(desk, ".lines li")) == kept
    desk.execute_script(script, True)
    wait_for(lambda: len(texts(desk, ".lines li")) > kept + 5, "what came meanwhile")
    numbers = [int(each) for each in texts(desk, ".lines .no")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_all_of_it_by_keyboard(page: Page) -> None:
    with browser() as driver:
        go(driver, page, "#/")

        def press(*keys: str) -> None:
            for key in keys:
                driver.switch_to.active_element.send_keys(key)

        press(Keys.TAB)
        assert driver.switch_to.active_element.text == "Skip to the content"
        press("2")
        wait_for(lambda: "10,005 devices" in seen(driver), "the devices")
        press("/")
        wait_for(lambda: driver.switch_to.active_element.tag_name == "input", "the search")
        press(*"good")
        wait_for(lambda: texts(driver, "tbody td.name") == ["good"], "the device")
        for _ in range(20):
            press(Keys.TAB)
            if driver.switch_to.active_element.text == "good":
                break
        press(Keys.ENTER)
        wait_for(lambda: "It is delivering." in seen(driver), "its page")
        outline = "return getComputedStyle(document.activeElement).outlineStyle"
        press(Keys.TAB)
        assert driver.execute_script(outline) != "none"
        press("4")
        wait_for(lambda: texts(driver, "h1") == ["Tail"], "the tail")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_can_be_read_in_light_and_dark_and_on_a_phone(
    page: Page, dark: bool, width: int
) -> None:
    with browser(width, 740, dark=dark) as driver:
        for address, selector in (
            ("#/", ".reason"), ("#/devices", "tbody td.last"), ("#/device/good", ".why"),
            ("#/device/off", ".why"), ("#/plot?c=good%20temp", "main p"),
            ("#/tail", ".lines .rest"),
        ):  # fmt: skip
            go(driver, page, address)
            wait_for(lambda wanted=selector: texts(driver, wanted), address)  # type: ignore[misc]
            for part in (selector, "h1", "nav a", "#health", "footer", "a"):
                assert contrast(driver, part) >= 4.5, (address, part)
            wide = (
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert driver.execute_script(wide) <= 0, address
        ground = (
            "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
        )
        assert (sum(driver.execute_script(ground)) < 200) == dark


def test_the_end_of_the_listener_is_shown_at_once(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener, Page(listener.data) as page, browser() as driver:
        go(driver, page, "#/")
        wait_for(lambda: texts(driver, ".word") == ["● ok"], "the health")
        listener.stop()
        wait_for(lambda: texts(driver, ".word") == ["✕ down"], "the news")
        assert driver.title == "✕ overview · ingest"
        assert "The listener is down" in texts(driver, "#banner")[0]
        assert "Not known: the listener does not answer." in seen(driver)
        page.stop()
        wait_for(
            lambda: "ingest-watch, which makes this page, does not answer" in seen(driver), "it"
        )
        driver.get_log("browser")  # that requests fail is said there, which is right


class _Proxy(threading.Thread):
    """Serves the page below a path of its own, as a proxy does."""

    def __init__(self, page: Page) -> None:
        super().__init__(daemon=True)
        self._to = page.url
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/some/where/"

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(ConnectionError):  # the browser goes away in the middle of a stream
            self._pass_on(connection)

    def _pass_on(self, connection: socket.socket) -> None:
        host, _, port = self._to.removeprefix("http://").rstrip("/").partition(":")
        with connection, socket.create_connection((host, int(port))) as inner:
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    return
                head += part
            lines = head.split(b"\r\n")
            if not lines[0].split()[1].startswith(b"/some/where/"):
                connection.sendall(
                    b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                return
            lines[0] = lines[0].replace(b"/some/where/", b"/", 1)
            lines.insert(1, b"Connection: close")
            kept = [each for each in lines if not each.lower().startswith(b"connection: keep")]
            inner.sendall(b"\r\n".join(kept))
            while data := inner.recv(65536):
                connection.sendall(data)

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join()


def test_what_fires_is_shown(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "<b>hot</b>"\nwhen = "temp > 30"\n')
    with (
        Listener(tmp_path / "data") as listener,
        Page(listener.data, "--rules", rules) as page,
        browser() as driver,
    ):
        listener.add("a")
        go(driver, page, "#/")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            device.send(device.frame("temp=31"))
            assert device.reply() == ("ack", 1)
        wait_for(lambda: "1 alert fires." in seen(driver), "the alert")
        driver.find_element(By.LINK_TEXT, "Alerts (1)").click()
        wait_for(lambda: "<b>hot</b>" in seen(driver), "its rule")
        marked = driver.find_elements(By.CSS_SELECTOR, "nav a[aria-current]")
        assert [each.text for each in marked] == ["Alerts (1)"]


def test_it_works_below_a_path_of_a_proxy(page: Page) -> None:
    proxy = _Proxy(page)
    proxy.start()
    try:
        with browser() as driver:
            driver.get(proxy.url)
            wait_for(lambda: texts(driver, ".word") == ["● ok"], "the health")
            driver.get(proxy.url + "#/tail")
            wait_for(lambda: len(texts(driver, ".lines li")) > 3, "the lines")
            driver.get(proxy.url.replace("://", "://ann:secret@") + "#/")
            wait_for(lambda: texts(driver, ".word") == ["● ok"], "the same with a password in it")
    finally:
        proxy.stop()


def requests_of(driver: Browser) -> list[str]:
    script = "return performance.getEntriesByType('resource').map(e => e.name)"
    found: Any = driver.execute_script(script)
    return [str(each) for each in found]


def test_it_asks_no_other_host(desk: Browser, page: Page) -> None:
    for address in ("#/", "#/devices", "#/device/good", "#/plot?c=good%20temp", "#/tail"):
        go(desk, page, address)
        wait_for(lambda: len(requests_of(desk)) > 5, "its requests")
        assert [each for each in requests_of(desk) if not each.startswith(page.url)] == []
    assert json.loads(page.fetch("api/status")[1])["role"] == "operate"
