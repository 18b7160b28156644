"""Every alert fires on what it is for and stays quiet otherwise, as `promtool` computes it."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.monitoring import reference
from tests.monitoring.programs import prometheus_program

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts/codealign/files/rules/codealign.yaml"
GROUPS = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDS = {rule["record"]: rule for group in GROUPS for rule in group["rules"] if "record" in rule}
ANYWHERE = 'namespace=~".*"'
_SELECTOR = re.compile(r"\b((?:codealign_|namespace_)\w+(?::\w+)*|up)\b(?!\s*:)(\{[^}]*\})?")

Series = Mapping[str, str]
"""Values by series, in promtool's notation: `0x10` is eleven zeros, `0+2x10` rises by 2 a minute."""


@dataclass(frozen=True)
class Case:
    """Series on which an alert fires, and series on which it does not."""

    alert: str
    at: str
    """When it is evaluated; a value arrives every minute."""
    fires: Series
    labels: Mapping[str, str]
    """Labels of the alert, apart from severity and namespace."""
    quiet: tuple[Series, ...]


def coordinator(name: str, **labels: str) -> str:
    return series(f"codealign_coordinator_{name}", **labels)


def series(metric: str, **labels: str) -> str:
    given = ",".join(f'{name}="{value}"' for name, value in {"namespace": "lab", **labels}.items())
    return f"{metric}{{{given}}}"


WORKING = coordinator("workloads", workload="run", state="working")
ITEMS = coordinator("items_total", stage="responses")
RUNNING, WAITING = series("codealign_inference_running_samples"), series("codealign_inference_waiting_samples")
WINDOW = coordinator("window_in_use", service="inference")
WORKER_STATE = {
    state: series("codealign_inference_gateway_workers", state=state)
    for state in ("ready", "loading", "refused", "unavailable", "aside")
}
QUEUED = series("codealign_inference_gateway_waiting_samples", model="m")
SINCE = series("codealign_inference_gateway_oldest_waiting_timestamp_seconds", model="m")
EMPTY = coordinator("dropped_items_total", stage="responses", reason="empty")
RESULTS = series("codealign_sandbox_results_total", verdict="PASSED", profile="default")
UNDECIDED = series("codealign_sandbox_results_total", verdict="INFRASTRUCTURE", profile="default")
FAULTS = series("codealign_sandbox_faults_total")
OLDEST = series("codealign_sandbox_oldest_queued_timestamp_seconds")
REFUSED = series("codealign_sandbox_runners", state="refused")
REFUSALS = series("codealign_sandbox_runner_starts_total", outcome="refused")
FREE, SIZE = (
    series(f"codealign_disk_{what}_bytes", job="codealign-dataset", volume="data") for what in ("free", "size")
)
EXPIRY = series("codealign_tls_certificate_expiry_timestamp_seconds", job="codealign-dataset", common_name="dataset")
FAILED = series("codealign_trainer_ended_trainings_total", job="codealign-operator", state="failed")
TRAINING, STEPS = series("codealign_trainer_running_trainings"), series("codealign_trainer_steps_total")
ERRORS = series("codealign_operator_reconcile_errors_total", reason="storage")
DAY = 1440

CASES = [
    Case(
        "CodeAlignTargetDown",
        "10m",
        {series("up", job="codealign-sandbox", instance="a"): "0x10"},
        {"job": "codealign-sandbox", "instance": "a"},
        ({series("up", job="codealign-sandbox"): "1x10"}, {series("up", job="another"): "0x10"}),
    ),
    Case(
        "CodeAlignTargetGone",
        "30m",
        {series("up", job="codealign-coordinator", instance="a"): "1x10 stale"},
        {"job": "codealign-coordinator"},
        (
            {
                series("up", job="codealign-sandbox", instance="a"): "1x10 stale",
                series("up", job="codealign-sandbox", instance="b"): "0x30",
            },
            {
                series("up", job="codealign-runners"): "1x10 stale",
                series("up", job="codealign-inference-workers"): "1x10 stale",
                series("up", job="another"): "1x10 stale",
            },
            {'up{job="codealign-sandbox"}': "1x10 stale"},
        ),
    ),
    Case(
        "CodeAlignRunStalled",
        "50m",
        {WORKING: "1x60", ITEMS: "0+5x10 50x50"},
        {},
        ({WORKING: "1x60", ITEMS: "0+1x60"}, {WORKING: "0x60", ITEMS: "50x60"}),
    ),
    Case(
        "CodeAlignEngineIdle",
        "10m",
        {RUNNING: "0x10", WAITING: "0x10", WINDOW: "4x10"},
        {},
        (
            {RUNNING: "3x10", WAITING: "4x10", WINDOW: "7x10"},
            {RUNNING: "0x10", WAITING: "0x10", WINDOW: "0x10"},
            {RUNNING: "0 0 1 0 0 0 1 0 0 0 1", WAITING: "2x10", WINDOW: "2x10"},
            # Workers start or load: other alerts say so.
            {RUNNING: "0x10", WINDOW: "4x10", WORKER_STATE["loading"]: "1x10", WORKER_STATE["ready"]: "0x10"},
        ),
    ),
    Case(
        "CodeAlignWorkerDown",
        "30m",
        {WORKER_STATE["unavailable"]: "2x30", WORKER_STATE["ready"]: "3x30"},
        {"state": "unavailable"},
        (
            {WORKER_STATE["unavailable"]: "0x30", WORKER_STATE["loading"]: "3x30"},
            {WORKER_STATE["unavailable"]: "2x10 0x20"},
        ),
    ),
    Case(
        "CodeAlignNoWorker",
        "20m",
        {QUEUED: "5x20", WORKER_STATE["ready"]: "0x20", WORKER_STATE["unavailable"]: "1x20"},
        {},
        (
            {QUEUED: "5x20", WORKER_STATE["loading"]: "1x20"},
            {QUEUED: "5x20", WORKER_STATE["ready"]: "1x20"},
            {QUEUED: "0x20", WORKER_STATE["ready"]: "0x20"},
        ),
    ),
    Case(
        "CodeAlignSamplesWait",
        "60m",
        {SINCE: "60x60"},
        {"model": "m"},
        ({SINCE: "0x60"}, {SINCE: "0+60x60"}),
    ),
    Case(
        "CodeAlignDropReasonJumps",
        f"{DAY}m",
        {ITEMS: f"0+10x{DAY}", EMPTY: f"0x{DAY - 25} 5+5x25"},
        {"stage": "responses", "reason": "empty"},
        ({ITEMS: f"0+10x{DAY}", EMPTY: f"0+5x{DAY}"}, {ITEMS: f"0+1x{DAY}", EMPTY: f"0x{DAY - 25} 1+1x25"}),
    ),
    Case(
        "CodeAlignInfrastructureFaults",
        "30m",
        {RESULTS: "0+100x30", FAULTS: "0+10x30"},
        {},
        (
            {RESULTS: "0+100x30", FAULTS: "0+1x30", UNDECIDED: "0x30"},
            {RESULTS: "7x30", FAULTS: "0x30"},
            {RESULTS: "0x20 1+1x10", FAULTS: "0x20 1x10"},
        ),
    ),
    Case(
        "CodeAlignBreakerOpened",
        "10m",
        {coordinator("breaker_openings_total"): "0x5 1x5"},
        {},
        ({coordinator("breaker_openings_total"): "1x10"},),
    ),
    Case(
        "CodeAlignQueueOld",
        "10m",
        {OLDEST: "60x10"},
        {},
        ({OLDEST: "0x10"}, {OLDEST: "0+60x10"}),
    ),
    Case(
        "CodeAlignRunnerNotIsolated",
        "5m",
        {REFUSED: "1x5"},
        {"state": "refused"},
        ({REFUSED: "0x5", REFUSALS: "0x5"}, {series("codealign_sandbox_runners", state="ready"): "2x5"}),
    ),
    Case(
        "CodeAlignDatabaseAway",
        "5m",
        {series("codealign_dataset_database_up"): "1x1 0x5"},
        {},
        ({series("codealign_dataset_database_up"): "1x5"}, {series("codealign_dataset_database_up"): "1 1 0 1 0 1"}),
    ),
    Case(
        "CodeAlignDiskFilling",
        "30m",
        {FREE: "5x30", SIZE: "100x30"},
        {"job": "codealign-dataset", "volume": "data"},
        (
            {FREE: "50x30", SIZE: "100x30"},
            {FREE: "90-1x30", SIZE: "100x30"},
            {FREE: "29-0.5x30", SIZE: "100x30"},
        ),
    ),
    Case(
        "CodeAlignDiskUnreadable",
        "10m",
        {FREE: " ".join(["NaN"] * 11), SIZE: " ".join(["NaN"] * 11)},
        {"job": "codealign-dataset", "volume": "data"},
        ({FREE: "50x10", SIZE: "100x10"}, {FREE: "50x3 NaN NaN 50x5", SIZE: "100x10"}),
    ),
    Case(
        "CodeAlignCertificateEnds",
        "30m",
        {EXPIRY: f"{10 * 86400}x30"},
        {"job": "codealign-dataset", "common_name": "dataset"},
        ({EXPIRY: f"{60 * 86400}x30"},),
    ),
    Case(
        "CodeAlignTrainingFailed",
        "10m",
        {FAILED: "0x5 1x5"},
        {"job": "codealign-operator", "state": "failed"},
        ({FAILED: "3x10"}, {FAILED.replace("failed", "succeeded"): "0x5 1x5"}),
    ),
    Case(
        "CodeAlignTrainingStuck",
        "60m",
        {TRAINING: "1x60", STEPS: "0+1x10 10x50"},
        {},
        ({TRAINING: "1x60", STEPS: "0+1x60"}, {TRAINING: "0x60", STEPS: "10x60"}),
    ),
    Case(
        "CodeAlignFineTuneJobPending",
        "90m",
        {series("codealign_operator_finetunejobs", state="pending"): "1x90"},
        {"state": "pending"},
        (
            {series("codealign_operator_finetunejobs", state="pending"): "1x40 0x10 1x40"},
            {series("codealign_operator_finetunejobs", state="running"): "1x90"},
        ),
    ),
    Case(
        "CodeAlignReconcileErrors",
        "30m",
        {ERRORS: "0+1x30"},
        {"reason": "storage"},
        ({ERRORS: "0x30"}, {ERRORS: "0x15 1x15"}),
    ),
]
OTHER_WAYS = [
    ("CodeAlignRunStalled", "50m", {coordinator("workloads", workload="evaluation", state="waiting"): "1x60"}),
    ("CodeAlignEngineIdle", "10m", {RUNNING: "0x10", WAITING: "2x10"}),
    (
        "CodeAlignEngineIdle",
        "10m",
        {RUNNING: "0x10", WINDOW: "4x10", WORKER_STATE["loading"]: "1x10", WORKER_STATE["ready"]: "1x10"},
    ),
    ("CodeAlignInfrastructureFaults", "30m", {RESULTS: "0+100x30", UNDECIDED: "0x9 0+1x20"}),
    ("CodeAlignRunnerNotIsolated", "5m", {REFUSED: "0x5", REFUSALS: "0+1x5"}),
    ("CodeAlignDiskFilling", "60m", {FREE: "28-0.2x60", SIZE: "100x60"}),
]
"""Further series on which an alert fires, where its expression has several parts."""


def evaluated(folder: Path, alert: str, at: str, given: Series, expected: list[Mapping[str, str]]) -> str:
    """Return what promtool says of an alert on these series: empty if it is as expected."""
    rules = copy.deepcopy(GROUPS)
    for rule in (rule for group in rules for rule in group["rules"]):
        rule.pop("annotations", None)  # promtool would compare them too
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}))
    alerts = [{"exp_labels": dict(labels)} for labels in expected]
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "alert_rule_test": [{"alertname": alert, "eval_time": at, "exp_alerts": alerts}],
    }
    (folder / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
    )
    command = [prometheus_program("promtool"), "test", "rules", "test.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def labels_of(alert: str, more: Mapping[str, str]) -> dict[str, str]:
    return {"namespace": "lab", "severity": ALERTS[alert]["labels"]["severity"], **more}


def test_every_alert_has_a_case() -> None:
    assert sorted(case.alert for case in CASES) == sorted(ALERTS)
    assert all(case.quiet for case in CASES)


@pytest.mark.prometheus
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_on_what_it_is_for(case: Case, tmp_path: Path) -> None:
    assert evaluated(tmp_path, case.alert, case.at, case.fires, [labels_of(case.alert, case.labels)]) == ""


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("alert", "at", "given"), OTHER_WAYS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_alert_fires_on_each_part_of_its_expression(alert: str, at: str, given: Series, tmp_path: Path) -> None:
    told = evaluated(tmp_path, alert, at, given, [])
    assert "got:[" in told.replace("\n", "").replace(" ", ""), told
    assert f'alertname="{alert}"' in told


@pytest.mark.prometheus
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_stays_quiet_otherwise(case: Case, tmp_path: Path) -> None:
    for given in case.quiet:
        assert evaluated(tmp_path, case.alert, case.at, given, []) == "", given


@pytest.mark.prometheus
def test_promtool_accepts_the_rules() -> None:
    command = [prometheus_program("promtool"), "check", "rules", "--lint-fatal", str(RULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_what_happened_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "runbook_url"} == rule["annotations"].keys()
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert.lower()}"
    runbooks = (ROOT / "docs/runbooks.md").read_text(encoding="utf-8")
    section = runbooks.split(f"\n## {alert}\n")[1].split("\n## ")[0]
    assert "\n1. " in section


@pytest.mark.parametrize("rule", [*ALERTS.values(), *RECORDS.values()], ids=lambda rule: rule.get("alert", "record"))
def test_a_rule_asks_only_for_metrics_that_exist_and_can_be_narrowed_to_a_namespace(rule: Mapping[str, Any]) -> None:
    known = {name for metric in reference.everything() for name in metric.series} | RECORDS.keys() | {"up"}
    found = _SELECTOR.findall(rule["expr"])
    assert found
    for name, selector in found:
        assert name in known
        assert selector.startswith(f"{{{ANYWHERE}"), f"{name}: {ANYWHERE} must come first, so that the chart finds it"
