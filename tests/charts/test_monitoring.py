"""The chart's monitoring: what is scraped, rules of the release's namespace, dashboards for Grafana's sidecar."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.charts.rendered import (
    CASES,
    CHART,
    NAMESPACE,
    SERVICES,
    WORKERS,
    has_workers,
    parsed,
    rendered,
    selects,
    template,
)
from tests.monitoring.programs import prometheus_program

RENDERED = pytest.mark.parametrize("case", CASES)
DASHBOARDS = sorted((CHART / "files/dashboards").glob("*.json"))


@RENDERED
def test_every_server_is_scraped_at_its_port_under_its_job(case: str) -> None:
    chart = rendered(case)
    found = {}
    for monitor in chart.of("ServiceMonitor") + chart.of("PodMonitor"):
        spec = monitor["spec"]
        (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
        (job,) = endpoint["relabelings"]
        assert job["targetLabel"] == "job"
        (pod,) = (each for each in chart.pods() if selects(spec["selector"]["matchLabels"], each.labels))
        ports = {port["name"] for container in pod.containers() for port in container.get("ports", [])}
        assert endpoint["port"] in ports
        found[pod.component] = job["replacement"]
    workers = [WORKERS] if has_workers(case) else []
    assert found == {name: f"codealign-{name}" for name in (*SERVICES, "runners", "operator", *workers)}


def test_what_the_cluster_does_not_know_is_left_out() -> None:
    told = template(kinds=()).stdout
    assert "monitoring.coreos.com" not in told
    assert "grafana_dashboard" not in told
    off = template("--set=monitoring.rules.enabled=disabled", "--set=monitoring.serviceMonitors=disabled").stdout
    assert "monitoring.coreos.com" not in off


def test_rules_are_narrowed_to_the_namespace_and_valid(tmp_path: Path) -> None:
    done = template(
        "--set=monitoring.rules.runbooks=https://wiki.example/runbooks", "--set=monitoring.labels.release=p"
    )
    (rule,) = parsed(done.stdout).of("PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "p"
    text = yaml.safe_dump(rule["spec"])
    assert ".*" not in text.replace("codealign-.*", "")
    assert f'namespace="{NAMESPACE}"' in text
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]
    assert all(each["annotations"]["runbook_url"].startswith("https://wiki.example/runbooks#") for each in alerts)
    (tmp_path / "rules.yaml").write_text(text)
    command = [prometheus_program("promtool"), "check", "rules", str(tmp_path / "rules.yaml")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_dashboards_are_config_maps_for_the_sidecar() -> None:
    done = template(
        "--set=monitoring.dashboards.enabled=true", "--set=monitoring.dashboards.annotations.grafana_folder=CodeAlign"
    )
    maps = [each for each in parsed(done.stdout).of("ConfigMap") if "grafana_dashboard" in each["metadata"]["labels"]]
    assert [name for each in maps for name in each["data"]] == [path.name for path in DASHBOARDS]
    for found, path in zip(maps, DASHBOARDS, strict=True):
        assert found["metadata"]["annotations"] == {"grafana_folder": "CodeAlign"}
        assert json.loads(found["data"][path.name]) == json.loads(path.read_text())
