"""The console in a real browser during a live run: `codealign console` over a simulated engine."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from services.console.tests import served
from services.console.tests.compared import Compared
from tests.bench.scene import Scene, follow, pipeline_of, run_of, store_seeds
from tests.browser import CHROMIUM, OVERFLOWING, Browser

AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
ROOT = Path(__file__).parents[2]
SECONDS = 120.0
SEEDS = 500
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the console was not looked at in a browser"),
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    # Slow enough to be watched; the test cancels its run.
    scene = Scene(tmp_path_factory.mktemp("scene"), inference={"simulated_speed": "5", "slots": "8"})
    with scene.up():
        yield scene


@pytest.fixture(scope="module")
def console(scene: Scene) -> Iterator[str]:
    """The address that `codealign console` prints."""
    command = [sys.executable, "-m", "codealign.cli.main", "console", "--port", "0"]
    for name in ("dataset", "coordinator"):
        command += [f"--{name}", scene.services[name].address]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={"PATH": "", "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        yield found.group()
        process.terminate()
        assert process.wait(timeout=30) == 143


@pytest.fixture(scope="module")
def examples() -> Iterator[str]:
    """The address of a console over services that answer with examples."""
    command = [sys.executable, "-m", "services.console.tests.served"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def until(browser: Browser, expression: str) -> Any:
    """Wait until a JavaScript expression is true, and return its value."""
    deadline = time.monotonic() + SECONDS
    while not (value := browser.evaluate(expression)):
        assert time.monotonic() < deadline, f"{expression}: {browser.evaluate('document.body.innerText')[:2000]}"
        browser.evaluate("new Promise(resolve => setTimeout(resolve, 100))")
    return value


def check(browser: Browser, console: str) -> None:
    """Check the open page: accessible, no error, nothing from elsewhere, nothing beyond the screen."""
    browser.evaluate(AXE + ";undefined")
    found = browser.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(done => done.violations.map("
        "one => `${one.id}: ${one.nodes.map(node => node.html.slice(0, 200)).join(' | ')}`))"
    )
    assert found == []
    assert browser.evaluate(OVERFLOWING) == []
    assert browser.seen("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    asked = {event["request"]["url"] for event in browser.seen("Network.requestWillBeSent")}
    assert all(url.startswith(f"{console}/") for url in asked)


def test_a_live_run_is_watched_and_followed_down_to_one_record(scene: Scene, console: str, browser: Browser) -> None:
    with scene.stubs() as (coordinator, dataset):
        store_seeds(dataset, SEEDS)
        config = run_of("nano", pipeline_of(coordinator))
        run = coordinator.CreateRun(api.CreateRunRequest(config=config), timeout=60).run.id
        browser.open(f"{console}/", 1280, dark=False)
        until(browser, "document.querySelector('.stages .kept') !== null")
        check(browser, console)

        browser.press("j")
        assert browser.evaluate("document.activeElement.getAttribute('href')") == f"/runs/{run}"
        browser.press("Enter")
        number = "Number(document.querySelector('#kinds a[href*=instruction] .n')?.innerText.replaceAll(',', ''))"
        before = until(browser, number)
        marked = "document.body.dataset.marked"
        browser.evaluate(f"{marked} = 'here'")
        assert until(browser, f"{number} > {before} && {number}") > before
        assert browser.evaluate(marked) == "here", "the page was updated, not loaded again"
        check(browser, console)

        browser.evaluate("document.querySelector('#kinds a[href*=instruction]').click()")
        until(
            browser,
            "document.querySelector('h1')?.innerText?.startsWith('Instructions') && document.readyState === 'complete'",
        )
        check(browser, console)
        browser.press("/")
        assert browser.evaluate("document.activeElement.name") == "text"
        browser.press("Escape", "j", "Enter")
        until(browser, "document.querySelector('.node.focus') !== null")
        assert "Seed" in browser.evaluate("document.querySelector('.crumbs').innerText")
        browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        check(browser, console)

        browser.press("g", "d")
        until(browser, "document.querySelector('h1')?.innerText === 'Data' && document.readyState === 'complete'")
        browser.press("?")
        assert browser.evaluate("document.getElementById('help').open")
        check(browser, console)
        coordinator.CancelRun(api.CancelRunRequest(run=run), timeout=60)
        assert follow(coordinator, run, 0.5, SECONDS).state == pb.RUN_STATE_CANCELLED
        browser.open(f"{console}/runs/{run}", 390, dark=True)
        check(browser, console)
        assert browser.evaluate("document.body.hasAttribute('data-live')") is False


def test_keys_of_one_character_can_be_switched_off(examples: str, browser: Browser) -> None:
    opened, switch = "document.getElementById('help').open", "document.getElementById('single-keys')"
    for acts in (True, False):
        browser.open(f"{examples}/experiments", 1280, dark=False)
        assert browser.evaluate(f"{switch}.checked") is acts, "the browser remembers it"
        browser.press("?")
        assert browser.evaluate(opened) is acts
        if not acts:
            browser.evaluate("document.getElementById('keys').click()")
        check(browser, examples)
        browser.evaluate(f"{switch}.click(); document.getElementById('help').close()")
        browser.press("?")
        assert browser.evaluate(opened) is not acts


@pytest.mark.parametrize("page", ["", "experiments", "data", "trainings", "evaluations", "compare", "nothing"])
def test_every_section_is_accessible_on_a_phone_in_the_dark(console: str, browser: Browser, page: str) -> None:
    browser.open(f"{console}/{page}", 390, dark=True)
    browser.events[:] = [event for event in browser.events if "404" not in str(event) and "503" not in str(event)]
    check(browser, console)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desktop", "phone in the dark"])
@pytest.mark.parametrize(
    "page",
    [
        f"runs/{served.AT_WORK.run.id}",
        f"runs/{served.ENDED.run.id}",
        "experiments",
        f"experiments/{served.EXPERIMENT}",
        f"experiments/{served.LONG_EXPERIMENT}",
    ],
    ids=["target and round", "their long texts", "experiments", "experiment", "its long texts"],
)
def test_targets_rounds_and_experiments_are_accessible(
    examples: str, browser: Browser, page: str, width: int, *, dark: bool
) -> None:
    browser.open(f"{examples}/{page}", width, dark=dark)
    check(browser, examples)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desktop", "phone in the dark"])
@pytest.mark.parametrize("tree", [served.COMPARED, served.LONG_COMPARED], ids=["short texts", "long texts"])
def test_comparisons_are_accessible(examples: str, browser: Browser, tree: Compared, width: int, *, dark: bool) -> None:
    pages = (f"runs/{tree.run.id}", *(f"records/{each.id}" for each in (tree.judgement, tree.row, *tree.trials)))
    for page in pages:
        browser.open(f"{examples}/{page}", width, dark=dark)
        browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        check(browser, examples)


def test_keys_lead_to_an_experiment_and_from_it_to_a_run_whose_page_is_read_again(
    examples: str, browser: Browser
) -> None:
    browser.open(f"{examples}/", 1280, dark=False)
    browser.press("g", "x")
    until(browser, "location.pathname === '/experiments' && document.readyState === 'complete'")
    browser.press("j", "Enter")
    until(browser, "document.querySelector('#cells') !== null && document.readyState === 'complete'")
    assert browser.evaluate("document.querySelectorAll('.arms circle').length") == 5
    browser.evaluate("document.querySelector('#cells-part a[href^=\"/runs/\"]').click()")
    until(browser, "document.querySelector('#rounds') !== null")
    assert browser.evaluate("document.querySelector('#target-part .bar .kept').getBoundingClientRect().width") > 0
    until(browser, "performance.getEntriesByName(location.href, 'resource').length > 1")
    assert browser.evaluate("document.getElementById('pulse').innerText.trim()") == "live"
