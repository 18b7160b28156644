"""Metrics follow Prometheus' conventions, have bounded labels, and are all on the generated page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from charts.monitoring import reference
from charts.monitoring.reference import Described

ROOT = Path(__file__).parents[2]
DEFINED = re.compile(r"\b(?:Counter|Gauge|Histogram)\(\s*\"(codealign_\w+)\"")
LABELS = {
    *("method", "code", "common_name"),  # bounded by the contracts and the certificate
    *("workload", "state", "stage", "reason", "model", "kind", "service", "event"),
    *("verdict", "profile", "outcome", "finish_reason", "endpoint"),
    *("operation", "table", "volume"),
    "worker",  # a gateway's present workers; the series of one that is gone is removed
}
"""Labels whose values come from a fixed set, the configuration, the loaded models or the present servers, never from
records or runs."""
UNITS = ("seconds", "bytes", "total", "rows", "requests", "records")
METRICS = pytest.mark.parametrize("metric", reference.everything(), ids=lambda metric: metric.name)


def test_the_page_is_that_of_the_code() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make monitoring`"


def test_no_metric_is_defined_outside_the_listed_modules() -> None:
    sources = [
        path for top in ("services", "sandbox-runner", "trainer", "cli") for path in (ROOT / top).glob("**/src/**/*.py")
    ]
    defined = {name for path in sources for name in DEFINED.findall(path.read_text(encoding="utf-8"))}
    assert defined == {metric.name for metric in reference.everything()}


@METRICS
def test_a_name_ends_with_its_unit_and_a_counter_with_total(metric: Described) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    if metric.kind == "histogram":
        assert metric.name.endswith(UNITS)
    assert not re.search(r"_(ms|millis|milliseconds|minutes|hours|kb|mb|gb|percent)(_|$)", metric.name)


@METRICS
def test_labels_have_a_bounded_set_of_values(metric: Described) -> None:
    assert set(metric.labels) <= LABELS


@METRICS
def test_the_description_is_one_phrase(metric: Described) -> None:
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert not metric.help.endswith(".")
    assert "|" not in metric.help
