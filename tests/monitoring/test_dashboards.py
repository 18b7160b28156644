"""Dashboards are those of the generator; every panel has a unit and a description and asks for metrics that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from charts.monitoring import dashboards, reference
from charts.monitoring.dashboards import DASHBOARDS, FOLDER, Panel

PANELS = [
    pytest.param(panel, id=f"{name}: {panel.title}") for name, (_, panels) in DASHBOARDS.items() for panel in panels
]
OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
"""Metrics of Prometheus and of its client library."""
VLLM = {
    *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
    *("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total", "vllm:num_preemptions_total"),
}
"""vLLM's metrics that panels show; `services/inference/tests/test_vllm.py` looks for them in a running vLLM."""
_METRIC = re.compile(r"([a-zA-Z_:][\w:]*)\{")


def test_the_files_are_those_of_the_generator() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(DASHBOARDS)
    for name in DASHBOARDS:
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == dashboards.built(name), "run `make monitoring`"


def test_the_table_of_panels_is_current() -> None:
    assert dashboards.PAGE.read_text(encoding="utf-8") == dashboards.page(), "run `make monitoring`"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_panel_in_the_file_has_a_unit_a_description_and_a_legend(name: str) -> None:
    panels: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["panels"]
    assert len(panels) == len(DASHBOARDS[name][1])
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"].endswith(".")
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_a_query_asks_for_metrics_that_exist_in_the_chosen_namespace(panel: Panel) -> None:
    known = {name for metric in reference.everything() for name in metric.series} | OTHERS
    for expression in panel.expressions():
        assert "{ns" not in expression
        names = _METRIC.findall(expression)
        assert names
        assert set(names) <= (VLLM if panel.where == "vllm" else known)
        assert expression.count("{") == expression.count('{namespace=~"$namespace"')


def test_every_vllm_metric_that_was_looked_for_is_shown() -> None:
    shown = {
        name
        for _, panels in DASHBOARDS.values()
        for panel in panels
        for expression in panel.expressions()
        for name in _METRIC.findall(expression)
        if name.startswith("vllm:")
    }
    assert shown == VLLM
