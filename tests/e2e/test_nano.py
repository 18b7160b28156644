"""The whole loop on the embedded model without a network, from seeds to report, with reproducible bytes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from charts.monitoring import reference
from charts.monitoring.dashboards import DASHBOARDS
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import presets
from tests.e2e.commands import codealign, command
from tests.e2e.test_recorded_run import progress, query, versions
from tests.monitoring.programs import prometheus_program
from tests.monitoring.scraping import Prometheus, scraping

SEEDS, PROBLEMS = 48, 24
RUN = ("run", "--preset", "nano", "--n", str(SEEDS))
OFFLINE = {"HF_HUB_OFFLINE": "1", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
pytestmark = [pytest.mark.gvisor, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, Prometheus | None]]:
    """Home directory and output of an undisturbed run, and the Prometheus that scraped it, where there is one."""
    home = tmp_path_factory.mktemp("nano")
    with contextlib.ExitStack() as stack:
        prometheus = None
        if program := shutil.which("prometheus"):
            prometheus = stack.enter_context(scraping(program, tmp_path_factory.mktemp("prometheus"), home))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (OFFLINE | {"COLUMNS": "160"}).items():
                patch.setenv(name, value)
            told = codealign(home, *RUN, "--until", "evaluation", "--problems", str(PROBLEMS))
        yield home, told, prometheus


@pytest.fixture(scope="module")
def finished(watched: tuple[Path, str, Prometheus | None]) -> tuple[Path, str]:
    """Home directory and output of the run."""
    return watched[:2]


@pytest.fixture(scope="module")
def prometheus(watched: tuple[Path, str, Prometheus | None]) -> Prometheus:
    """The Prometheus that scraped the run. Skips the test if there is none; in CI, fails it."""
    prometheus_program("prometheus")
    assert watched[2] is not None
    return watched[2]


def test_the_loop_ends_with_a_model_that_is_better(finished: tuple[Path, str]) -> None:
    home, told = finished
    line = re.search(r"NanoEval, 5 samples\s+(\d+\.\d)%.*?(\d+\.\d)%", told, re.DOTALL)
    assert line is not None, told
    before, after = map(float, line.groups())
    assert after > before + 10
    (page,) = (home / "reports").glob("*.html")
    assert "NanoEval, 5 samples" in page.read_text()


def test_bad_seeds_are_dropped_by_name(finished: tuple[Path, str]) -> None:
    home, told = finished
    decided = query(home, "select label, count(*) from records where kind = 11 and label like 'seed.%' group by label")
    rules = {str(rule): count for rule, count in decided}
    assert rules.pop("seed.selected") == SEEDS
    assert rules
    assert all(rule in told for rule in rules)


def test_the_version_says_that_it_can_be_made_again(finished: tuple[Path, str]) -> None:
    home, _ = finished
    (version,) = versions(home).values()
    manifest = json.loads(version["manifest.json"])
    assert manifest["promise"] == "reproducible"
    assert manifest["rows"] >= SEEDS // 4


def test_every_panel_of_every_dashboard_has_data(prometheus: Prometheus) -> None:
    empty = [
        f"{name}: {panel.title}: {expression}"
        for name, (_, panels) in DASHBOARDS.items()
        for panel in panels
        if not panel.where
        for expression in panel.expressions()
        if not prometheus.values(expression)
    ]
    assert empty == []


def test_every_exported_metric_is_documented_and_no_alert_fired(prometheus: Prometheus) -> None:
    known = {name for metric in reference.everything() for name in metric.series}
    exported = {name for name in prometheus.names() if name.startswith("codealign_")}
    assert {name for name in exported if not name.endswith("_created")} <= known
    assert prometheus.values('ALERTS{alertstate="firing", alertname!="CodeAlignDiskFilling"}') == []


@pytest.mark.slow
def test_a_run_stopped_at_random_and_continued_with_another_concurrency_publishes_the_same_bytes(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    home, _ = finished
    given = yaml.safe_load((Path(presets.__file__).parent / "nano.yaml").read_text())
    given["inference"] |= {"slots": 3, "prefill_chunk": 37, "workers": 1}
    (tmp_path / "narrow.yaml").write_text(yaml.safe_dump(given))
    narrow = (*RUN[:2], str(tmp_path / "narrow.yaml"), *RUN[3:])
    again = tmp_path / "home"
    seed = int.from_bytes(os.urandom(4))
    print(f"moments drawn with seed {seed}")
    total = progress(home)
    dice = random.Random(seed)
    shares = sorted(dice.uniform(0.05, 0.75) for _ in range(3))
    for share, arguments in zip(shares, (narrow, RUN, narrow), strict=True):
        run = subprocess.Popen(command(again, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 180
        until = max(share * total, progress(again) + 1)  # at work: an earlier signal would meet the interpreter's start
        while progress(again) < until and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert run.poll() is None, "it was over before it was stopped"
        run.send_signal(dice.choice((signal.SIGINT, signal.SIGTERM)))
        assert run.wait(60) != 0
    codealign(again, *RUN)
    assert versions(again) == versions(home)
    of_the_run = f"select id from records where kind = {pb.KIND_RUN}"
    assert query(again, of_the_run) == query(home, of_the_run), "the settings of inference make no other run"
