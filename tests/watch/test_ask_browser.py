"""Ask and Alerts in a real Chromium, with names and values that mean no good."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from ingest.layout import Layout
from tests.log.logs import line
from tests.support.waiting import wait_for
from tests.watch.logs import close
from tests.watch.pages import Browser, Page, browser
from tests.watch.rules.receiving import Device
from tests.watch.test_asking import HEAVY, children, make_log, post
from tests.watch.test_browser import contrast, go, painted, seen, texts

EVIL = "<img src=x onerror=document.title='owned'>"
STEERING = "\u202e\u2066</td><script>document.title='owned'</script>"
CURVES = (
    "SELECT time_bucket(INTERVAL 5 minute, time) AS t, device, avg(temp) AS temp"
    " FROM log GROUP BY ALL ORDER BY 1"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("ask")
    layout, rules = Layout(folder / "data"), folder / "rules.toml"
    make_log(layout)
    rules.write_text(
        f"[[rule]]\nname = {json.dumps(EVIL)}\nwhen = \"evil != ''\"\n"
        'message = "{device} says {evil}"\nthen = ["exec:/bin/true"]\n'
        '[[rule]]\nname = "quiet"\nwhen = "temp > 1e9"\n'
    )
    with Page(layout.data, "--rules", rules) as running:
        wait_for(lambda: "rules are in force" in running.output, "the rules")
        Device(layout).send(json.dumps({"evil": EVIL + STEERING}), "hostile")
        wait_for(lambda: running.get("status")["alerts"] == 1, "the alert")
        yield running


@pytest.fixture(scope="module")
def desk(page: Page) -> Iterator[Browser]:
    with browser() as driver:
        yield driver


EXAMPLE = (
    "SELECT device, count(*) AS records, min(time) AS first, max(time) AS last\n"
    "FROM log GROUP BY device ORDER BY records DESC"
)


def ask(driver: Browser, sql: str) -> None:
    """Put a query into the box and run it by keyboard."""
    box = driver.find_element(By.CSS_SELECTOR, "textarea")
    box.send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
    box.send_keys(sql)
    box.send_keys(Keys.CONTROL, Keys.ENTER)


def forget_refusals(driver: Browser) -> None:
    """Take from the console that a query was refused, which is right, and nothing else."""
    for said in driver.get_log("browser"):
        assert "/api/quer" in said["message"], said


def assert_harmless(driver: Browser) -> None:
    assert driver.find_elements(By.CSS_SELECTOR, "main img, main script, main b[onerror]") == []
    assert "owned" not in driver.title
    assert "\u202e" not in seen(driver)


def test_a_result_is_a_table_and_a_curve(desk: Browser, page: Page) -> None:
    go(desk, page, "#/ask")
    ask(desk, CURVES)
    wait_for(lambda: "rows in" in seen(desk), "the result")
    assert texts(desk, "thead th") == ["t", "device", "temp"]
    assert len(texts(desk, "tbody tr")) > 20
    desk.find_element(By.XPATH, "//button[text()='Curve']").click()
    wait_for(lambda: painted(desk) > 50, "the curve")
    assert [each.strip() for each in texts(desk, ".result .chips li")] == ["a", "b"]
    assert "sql=SELECT" in desk.current_url
    ask(desk, "SELECT device, count(*) AS n FROM log GROUP BY 1 ORDER BY 1")
    wait_for(lambda: texts(desk, "thead th") == ["device", "n"], "the table of what has no times")
    assert desk.find_element(By.XPATH, "//button[text()='Curve']").get_attribute("disabled")


def test_a_query_of_an_address_waits_to_be_run(desk: Browser, page: Page) -> None:
    go(desk, page, "#/ask?sql=SELECT%20123456&span=3600&device=b*")
    box = desk.find_element(By.CSS_SELECTOR, "textarea")
    assert box.get_property("value") == "SELECT 123456"
    box.send_keys(Keys.CONTROL, Keys.ENTER)
    wait_for(lambda: texts(desk, "tbody td") == ["123456"], "the result")
    assert desk.current_url.endswith("#/ask?sql=SELECT+123456&span=3600&device=b*"), "all of it"


def test_every_example_has_an_answer(desk: Browser, page: Page) -> None:
    go(desk, page, "#/ask")
    names = texts(desk, "select[aria-label=Examples] option")[1:]
    assert len(names) == 6
    for name in names:
        desk.find_element(By.XPATH, f"//option[text()='{name}']").click()
        desk.find_element(By.XPATH, "//button[text()='Run']").click()
        wait_for(lambda: " in " in "".join(texts(desk, "main p[role=status]")), name)
        assert texts(desk, "#ask-error") == [""]


def test_a_mistake_is_marked(desk: Browser, page: Page) -> None:
    go(desk, page, "#/ask")
    quoted = EVIL.replace("'", "''")
    ask(desk, f"SELECT device,\n  nope, '{quoted}' FROM log")
    wait_for(lambda: texts(desk, ".mistake mark") == ["nope"], "the mark")
    assert '"nope" not found' in seen(desk)
    assert "Line 2, column 3" in seen(desk)
    script = "const t = document.querySelector('textarea');"
    selected = desk.execute_script(
        f"{script} return t.value.slice(t.selectionStart, t.selectionEnd)"
    )
    assert selected == "nope"
    assert_harmless(desk)
    ask(desk, "SELECT 'é😀', nope FROM log")
    wait_for(lambda: "Line 1, column 14" in seen(desk), "the place behind wide characters")
    assert texts(desk, ".mistake mark") == ["nope"]
    forget_refusals(desk)


def test_values_of_a_result_are_text(desk: Browser, page: Page) -> None:
    go(desk, page, "#/ask")
    ask(desk, "SELECT evil, data, text FROM log WHERE device = 'hostile'")
    wait_for(lambda: EVIL in seen(desk), "the value")
    assert "\\u202e" in seen(desk)
    name = EVIL.replace("'", "")
    ask(desk, f"SELECT 1 AS \"{name}\", now() AS t, '{name}' AS d")
    wait_for(lambda: "onerror=document.title" in "".join(texts(desk, "thead th")), "the name")
    desk.find_element(By.XPATH, "//button[text()='Curve']").click()
    wait_for(lambda: "onerror" in "".join(texts(desk, ".result .chips")), "the curve's name")
    assert_harmless(desk)


def test_a_query_is_cancelled(desk: Browser, page: Page) -> None:
    go(desk, page, "#/ask")
    ask(desk, HEAVY)
    wait_for(lambda: "Asking for" in seen(desk), "the progress")
    wait_for(lambda: children(page), "its process")
    desk.find_element(By.XPATH, "//button[text()='Cancel']").click()
    wait_for(lambda: "the query was cancelled" in seen(desk), "its end")
    ask(desk, HEAVY)
    wait_for(lambda: children(page), "its process")
    desk.find_element(By.CSS_SELECTOR, "textarea").send_keys(Keys.ESCAPE)
    wait_for(lambda: "the query was cancelled" in seen(desk), "its end")
    ask(desk, HEAVY)
    wait_for(lambda: children(page), "its process")
    desk.get(page.url + "#/tail")
    wait_for(lambda: not children(page), "the end of what nobody waits for")
    forget_refusals(desk)


def test_queries_are_kept_and_forgotten(desk: Browser, page: Page) -> None:
    go(desk, page, "#/ask")
    wait_for(lambda: "Keep this query" in seen(desk), "the role")
    box = desk.find_element(By.CSS_SELECTOR, "textarea")
    box.send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
    box.send_keys("SELECT 42")
    desk.find_element(By.CSS_SELECTOR, "input[type=text]").send_keys(EVIL, Keys.ENTER)
    wait_for(lambda: EVIL in "".join(texts(desk, ".chips")), "the name")
    go(desk, page, "#/ask")
    wait_for(lambda: texts(desk, ".chips .text") == [EVIL], "what was kept")
    desk.find_element(By.CSS_SELECTOR, ".chips .text").click()
    box = desk.find_element(By.CSS_SELECTOR, "textarea")
    assert box.get_property("value") == "SELECT 42"
    assert_harmless(desk)
    desk.find_element(By.CSS_SELECTOR, ".chips button[aria-label^=Forget]").click()
    wait_for(lambda: texts(desk, ".chips .text") == [], "that it is forgotten")


def test_what_fires_and_what_was_done(desk: Browser, page: Page) -> None:
    go(desk, page, "#/alerts")
    wait_for(lambda: "1 alert now; 2 rules are defined." in seen(desk), "the summary")
    wait_for(lambda: "exec:/bin/true: told at" in seen(desk), "what was done")
    (alert,) = texts(desk, "ul.alerts li")
    assert alert.startswith(f"▲{EVIL} hostile since ")
    assert "temp > 1e9" in seen(desk)
    assert "\\u202e" in alert
    assert texts(desk, "nav a[data-page=alerts]") == ["Alerts (1)"]
    assert_harmless(desk)
    go(desk, page, "#/")
    wait_for(lambda: EVIL in "".join(texts(desk, "ul.alerts")), "the alert on the overview")
    assert_harmless(desk)
    desk.find_element(By.CSS_SELECTOR, "ul.alerts a").click()
    wait_for(lambda: texts(desk, "h1") == ["hostile"], "the device")


def test_without_rules_the_page_says_how(tmp_path: Path) -> None:
    with Page(tmp_path / "data") as page, browser() as driver:
        go(driver, page, "#/alerts")
        wait_for(lambda: "twistd ingest-watch --rules FILE" in seen(driver), "what to do")
        go(driver, page, "#/")
        assert "No rules" not in seen(driver)
        go(driver, page, "#/tail")
        wait_for(lambda: "live; no line yet" in seen(driver), "that nothing came")


def test_both_by_keyboard(page: Page) -> None:
    with browser() as driver:
        go(driver, page, "#/")

        def press(*keys: str) -> None:
            driver.switch_to.active_element.send_keys(*keys)

        press("5")
        wait_for(lambda: driver.switch_to.active_element.tag_name == "textarea", "the box")
        assert driver.switch_to.active_element.get_property("value") == EXAMPLE
        press(Keys.CONTROL, Keys.ENTER)
        wait_for(lambda: "rows in" in seen(driver), "the result")
        press("6")
        assert driver.switch_to.active_element.get_property("value") == EXAMPLE + "6"
        press(Keys.ESCAPE)
        press("6")
        wait_for(lambda: texts(driver, "h1") == ["Alerts"], "the alerts")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 360])
def test_both_can_be_read_in_light_and_dark_and_on_a_phone(
    page: Page, dark: bool, width: int
) -> None:
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    with browser(width, 740, dark=dark) as driver:
        go(driver, page, "#/ask")
        ask(driver, CURVES)
        wait_for(lambda: "rows in" in seen(driver), "the result")
        for part in ("textarea", "button.main", "td.cell", "thead th", "main p"):
            assert contrast(driver, part) >= 4.5, part
        assert driver.execute_script(wide) <= 0
        driver.find_element(By.XPATH, "//button[text()='Curve']").click()
        wait_for(lambda: painted(driver) > 20, "the curve")
        ask(driver, "SELECT nope")
        wait_for(lambda: texts(driver, ".mistake mark"), "the mark")
        for part in (".mistake", ".mistake mark", "#ask-error .problem"):
            assert contrast(driver, part) >= 4.5, part
        forget_refusals(driver)
        go(driver, page, "#/alerts")
        wait_for(lambda: texts(driver, "ul.alerts li"), "the alerts")
        for part in (".alert", ".alert a", ".note", "td.cell", "code"):
            assert contrast(driver, part) >= 4.5, part
        assert driver.execute_script(wide) <= 0


def test_the_api_says_the_same(page: Page) -> None:
    found = page.get("alerts")
    assert [rule["name"] for rule in found["rules"]] == [EVIL, "quiet"]
    assert post(page, "query", {"sql": "SELECT 1"})[0] == 200


def test_it_says_of_which_files_only_a_part_was_read(layout: Layout) -> None:
    cut = close(layout, 10, *(line(seq) for seq in range(1, 20_000)), suffix=".zst").path
    cut.write_bytes(cut.read_bytes()[:-30])
    with Page(layout.data) as page, browser() as driver:
        go(driver, page, "#/ask")
        ask(driver, "SELECT count(*) FROM log")
        wait_for(lambda: "1 row in" in seen(driver), "the result")
        (said,) = texts(driver, "#ask-error .problem")
        assert said.startswith(f"{cut} is damaged")
        ask(driver, "SELECT seq AS one FROM log WHERE time > '2026-11-22 16:00:00'")
        wait_for(lambda: texts(driver, "thead th") == ["one"], "the next result")
        assert texts(driver, "#ask-error .problem") == []
