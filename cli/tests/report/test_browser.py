"""The page in a real browser: nothing overflows, nothing is loaded, and the console stays empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.cli.report.page import write
from tests.browser import CHROMIUM, OVERFLOWING, Browser

PHONE, DESKTOP = 390, 1280
REPORTS = ("small", "large", "empty", "long_names", "hostile")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the page was not looked at in a browser"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> api.GetReportResponse:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, api.GetReportResponse)
    return found


@pytest.mark.parametrize("report", REPORTS, indirect=True)
def test_nothing_overflows_or_is_loaded_or_run(report: api.GetReportResponse, browser: Browser, tmp_path: Path) -> None:
    page = write(report, tmp_path / "report.html")
    for width, dark in ((PHONE, False), (DESKTOP, True)):
        browser.open(page.as_uri(), width, dark=dark)
        for _ in range(2):  # initially, then with everything unfolded
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate(OVERFLOWING) == []
            browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert browser.evaluate("document.scripts.length") == browser.evaluate("document.links.length") == 0
        assert browser.seen("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
        loaded = [event["request"]["url"] for event in browser.seen("Network.requestWillBeSent")]
        assert loaded == [page.as_uri()]


def test_the_style_sheet_is_in_force_in_both_colour_schemes(
    small: api.GetReportResponse, browser: Browser, tmp_path: Path
) -> None:
    page = write(small, tmp_path / "report.html")
    colours = []
    for dark in (False, True):
        browser.open(page.as_uri(), DESKTOP, dark=dark)
        colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        bar = "document.querySelector('.stage-bar .kept')"
        assert browser.evaluate(f"{bar}.getBoundingClientRect().width") > 20
        assert browser.evaluate(f"getComputedStyle({bar}).fill") != "rgb(0, 0, 0)"
    assert colours == ["rgb(252, 252, 251)", "rgb(17, 23, 27)"]
