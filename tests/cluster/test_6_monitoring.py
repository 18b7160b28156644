"""What monitors a release: rules, scrape targets and dashboards as installed, and the console."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from charts.monitoring.dashboards import FOLDER
from tests.cluster.conftest import Report
from tests.cluster.kube import Forward, Manifest, secret, until
from tests.cluster.release import SERVICES, Release
from tests.monitoring.programs import prometheus_program
from tests.monitoring.scraping import Prometheus, scraping


def _selected(release: Release, monitor: Manifest) -> list[Manifest]:
    """Return the pods behind a ServiceMonitor or PodMonitor. A Service of the chart has the labels of its pods."""
    labels = monitor["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    return [pod for pod in release.get("pods", f"--selector={selector}") if "deletionTimestamp" not in pod["metadata"]]


def _job(monitor: Manifest) -> str:
    spec = monitor["spec"]
    (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
    (relabeling,) = endpoint["relabelings"]
    return str(relabeling["replacement"])


def _metrics_port(pod: Manifest) -> int:
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
    (metrics,) = [port["containerPort"] for port in ports if port["name"] == "metrics"]
    return int(metrics)


@pytest.fixture
def targets(demo: Release) -> Iterator[list[dict[str, object]]]:
    """Every pod that the monitors select, through a forwarded port, as Prometheus discovers targets from files."""
    with contextlib.ExitStack() as stack:
        found: list[dict[str, object]] = []
        for monitor in [*demo.get("servicemonitors"), *demo.get("podmonitors")]:
            for pod in _selected(demo, monitor):
                name = pod["metadata"]["name"]
                forward = Forward(demo.namespace, f"pod/{name}", _metrics_port(pod))
                stack.callback(forward.close)
                labels = {"job": _job(monitor), "namespace": demo.namespace, "pod": name}
                found.append({"targets": [forward.address], "labels": labels})
        yield found


def test_prometheus_scrapes_every_server_and_evaluates_the_installed_rules(
    demo: Release, targets: list[dict[str, object]], tmp_path: Path, report: Report
) -> None:
    (installed,) = demo.get("prometheusrules")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": installed["spec"]["groups"]}))
    discovery = tmp_path / "home" / "run" / "prometheus"
    discovery.mkdir(parents=True)
    (discovery / "targets.json").write_text(json.dumps(targets))
    (tmp_path / "prometheus").mkdir()
    rules = str(tmp_path / "rules.yaml")
    with (
        report.step("Prometheus scrapes every pod of the monitors and evaluates the installed rules") as seen,
        scraping(prometheus_program("prometheus"), tmp_path / "prometheus", tmp_path / "home", rules) as prometheus,
    ):

        def up() -> dict[str, str]:
            active = prometheus.ask("targets", state="active")["activeTargets"]
            return {target["labels"]["pod"]: target["health"] for target in active}

        until("every target is up", lambda: len(up()) == len(targets) and set(up().values()) == {"up"}, 90)
        until("every rule was evaluated", lambda: {rule["health"] for rule in _rules(prometheus)} == {"ok"}, 60)
        jobs = {line["labels"]["job"] for line in prometheus.ask("targets", state="active")["activeTargets"]}
        seen(f"{len(targets)} targets, {len(_rules(prometheus))} rules")
    assert jobs >= {f"codealign-{component}" for component in (*SERVICES, "operator")}
    assert demo.namespace in json.dumps(installed["spec"])


def _rules(prometheus: Prometheus) -> list[Manifest]:
    groups = prometheus.ask("rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_dashboards_are_installed_as_grafanas_sidecar_finds_them(demo: Release) -> None:
    found = demo.get("configmaps", "--selector=grafana_dashboard=1")
    contents = {name: text for each in found for name, text in each["data"].items()}
    assert contents.keys() == {path.name for path in FOLDER.glob("*.json")}
    for name, text in contents.items():
        assert json.loads(text) == json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture
def console(demo: Release) -> Iterator[int]:
    """The console's port on this machine."""
    forward = Forward(demo.namespace, f"service/{demo.full}-console", 443)
    yield forward.port
    forward.close()


def _page(demo: Release, port: int, path: str, folder: Path, *, certificate: bool) -> tuple[int, str]:
    files = secret(demo.namespace, f"{demo.full}-client-tls")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if certificate:
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_console_answers_through_its_service_and_refuses_browsers_without_a_certificate(
    demo: Release, console: int, tmp_path: Path, report: Report
) -> None:
    with report.step("the console, through its Service") as seen:

        def answers() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return _page(demo, console, "/", tmp_path, certificate=True)[0] == 200
            return False

        until("the console answers", answers, 60)
        status, page = _page(demo, console, "/", tmp_path, certificate=True)
        assert status == 200
        assert 'href="/runs/' in page, "the runs of the release"
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            _page(demo, console, "/", tmp_path, certificate=False)
        seen("runs with a certificate, no answer without")
