"""The page in a real browser: nothing overflows, nothing is loaded, and the console stays empty."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.cli.report.page import write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESKTOP = 390, 1280
REPORTS = ("small", "large", "empty", "long_names", "hostile")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the page was not looked at in a browser"),
]

# Elements that overflow the page and are not inside a scrolling or clipping box.
OVERFLOWING = """
[...document.querySelectorAll('body *')].filter(one => {
  if (one.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let box = one; box && box !== document.body; box = box.parentElement)
    if (['auto', 'hidden', 'scroll'].includes(getComputedStyle(box).overflowX) && box.tagName !== 'svg') return false;
  return true;
}).map(one => one.outerHTML.slice(0, 120))
"""


class Browser:
    """Headless Chromium, controlled through the pipes of its DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        arguments = [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
            *(f"--user-data-dir={profile}", "--no-first-run", "--disable-extensions", "about:blank"),
        ]
        # The protocol's pipes are descriptors 3 and 4 of the browser.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *arguments],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number = 0
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return a command's result; keep events that arrive in the meantime."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, page: Path, width: int, *, dark: bool) -> None:
        """Open a page with a width and colour scheme."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        """Return a JavaScript expression's value (the page's own policy blocks scripts)."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """Return the whole page as a PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        file.write_bytes(base64.b64decode(answer["data"]))

    def seen(self, *methods: str) -> list[dict[str, Any]]:
        """Return the parameters of events since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._write)
        os.close(self._read)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 16)
            assert chunk, "the browser ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


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
        browser.open(page, width, dark=dark)
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
        browser.open(page, DESKTOP, dark=dark)
        colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        bar = "document.querySelector('.stage-bar .kept')"
        assert browser.evaluate(f"{bar}.getBoundingClientRect().width") > 20
        assert browser.evaluate(f"getComputedStyle({bar}).fill") != "rgb(0, 0, 0)"
    assert colours == ["rgb(252, 252, 251)", "rgb(17, 23, 27)"]
