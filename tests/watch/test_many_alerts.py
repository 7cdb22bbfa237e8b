"""Thousands of alerts may fire: the page and its API show a page of them, and say how many."""

from selenium.webdriver.common.by import By

from ingest.layout import Layout
from tests.support.waiting import wait_for
from tests.watch.pages import Page, browser
from tests.watch.rules.receiving import Device
from tests.watch.test_browser import go, seen, texts

MANY = 120


def test_alerts_come_by_pages(layout: Layout) -> None:
    rules = layout.data.with_name("rules.toml")
    rules.write_text('[[rule]]\nname = "hot"\nwhen = "temp > 50"\n')
    with Page(layout.data, "--rules", rules) as page:
        wait_for(lambda: "rules are in force" in page.output, "the rules")
        device = Device(layout)
        for number in range(MANY):
            device.send("temp=60", f"boiler-{number:03}")
        wait_for(lambda: page.get("status")["alerts"] == MANY, "the alerts")
        pages = [page.get("alerts", page=number, size=50) for number in (1, 2, 3)]
        assert {(found["firing"], found["pages"]) for found in pages} == {(MANY, 3)}
        numbers = [alert["number"] for found in pages for alert in found["alerts"]]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) == MANY
        assert page.get("alerts", page=99, size=50) == pages[-1] | {"behind": 0.0}
        assert page.get("alerts")["rules"][0]["firing"] == MANY
        assert page.refusal("api/alerts", size=501)[0] == 400
        with browser() as driver:
            go(driver, page, "#/alerts")
            wait_for(lambda: f"{MANY} alerts now" in seen(driver), "how many there are")
            assert len(texts(driver, "ul.alerts li")) == 50
            driver.find_element(By.XPATH, "//button[text()='Next ›']").click()
            wait_for(lambda: "2 of 3" in seen(driver), "the next page")
            assert len(texts(driver, "ul.alerts li")) == 50
            go(driver, page, "#/")
            wait_for(lambda: len(texts(driver, "ul.alerts li")) == 5, "the newest, on the overview")
            assert f"{MANY} alerts now" in seen(driver)
