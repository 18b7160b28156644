"""Two releases side by side in one cluster, and the report of the tests.

Opt-in (CODEALIGN_TEST_CLUSTER, which `make test-cluster` sets), since it makes namespaces in the cluster of KUBECONFIG.
The files run in order: each continues with the releases in the state left by the previous one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster.kube import KEEP, kubectl, volumes
from tests.cluster.release import Release, as_json

MONITORING_KINDS = {
    "servicemonitors.monitoring.coreos.com": "ServiceMonitor",
    "podmonitors.monitoring.coreos.com": "PodMonitor",
    "prometheusrules.monitoring.coreos.com": "PrometheusRule",
}


@dataclass
class Report:
    """Results of these tests, for docs/cluster-test.md."""

    steps: list[tuple[str, float, str]] = field(default_factory=list)
    tables: dict[str, tuple[str, list[tuple[object, ...]]]] = field(default_factory=dict)
    """A heading, an introduction, and rows, the first of which has the column names."""

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Time a step. The yielded function records results."""
        seen: list[str] = []
        began = time.monotonic()
        yield seen.append
        self.steps.append((what, time.monotonic() - began, "; ".join(seen)))

    def text(self) -> str:
        """Return the report as Markdown."""
        lines = [_HEAD, "| step | seconds | result |", "| --- | ---: | --- |"]
        lines += [f"| {what} | {seconds:.0f} | {seen} |" for what, seconds, seen in self.steps]
        for heading, (about, rows) in self.tables.items():
            lines += ["", f"## {heading}", "", about, ""]
            for at, row in enumerate(rows):
                lines.append(f"| {' | '.join(str(cell) for cell in row)} |")
                if at == 0:
                    lines.append("|" + " --- |" * len(row))
        return "\n".join(lines) + "\n"


_HEAD = """# Cluster test report

Written by `make test-cluster ARGS=--report=docs/cluster-test.md`. One node with two cores and gVisor runs Kubernetes,
every service, both releases and the programs they execute. Images were built beforehand (`make images`).
"""
_REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", help="write what was seen to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("CODEALIGN_TEST_CLUSTER"):
        return
    here = Path(__file__).parent
    skip = pytest.mark.skip(reason="makes namespaces in the cluster of KUBECONFIG: `make test-cluster` runs it")
    for item in items:
        if here in item.path.parents:
            item.add_marker(skip)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--report")
    if path and session.testscollected:
        Path(path).write_text(session.config.stash[_REPORT].text(), encoding="utf-8")


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash[_REPORT]


@pytest.fixture(scope="session")
def _volumes() -> Iterator[dict[str, str]]:
    # Leftovers of interrupted tests.
    if not KEEP:
        kubectl("delete", "namespace", "codealign-demo", "codealign-other", "--ignore-not-found", "--timeout=240s")
    claims = []
    for release, namespace in (("demo", "codealign-demo"), ("other", "codealign-other")):
        claims += [(namespace, f"{release}-codealign-artifacts"), (namespace, f"data-{release}-codealign-postgresql-0")]
    with volumes(claims) as values:
        if registry := os.environ.get("CODEALIGN_TEST_REGISTRY"):
            values = {**values, "image.registry": registry}
        yield values


@pytest.fixture(scope="session")
def _monitoring_kinds() -> Iterator[None]:
    """The kinds of Prometheus' operator, of which these tests do the work, where the cluster has no such operator."""
    made = [name for name in MONITORING_KINDS if not kubectl("get", "crd", name, "--ignore-not-found", "--output=name")]
    if made:
        kubectl("apply", "--filename=-", given=as_json(*(_crd(name) for name in made)))
        kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in made), "--timeout=60s")
    yield
    if made and not KEEP:
        kubectl("delete", "crd", *made, "--wait=false")


def _crd(name: str) -> dict[str, object]:
    plural, _, group = name.partition(".")
    kind = MONITORING_KINDS[name]
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


WORKERS = {"inference.workers.enabled": "true", "inference.workers.scaling.max": "2"}


@pytest.fixture(scope="session")
def demo(_volumes: dict[str, str], _monitoring_kinds: None) -> Iterator[Release]:
    """The release under test, with two inference workers; `test_1_installation` installs it."""
    with Release("demo", "codealign-demo", {**_volumes, **WORKERS}) as release:
        yield release


@pytest.fixture(scope="session")
def other(_volumes: dict[str, str]) -> Iterator[Release]:
    """A second release in another namespace, in which one pod generates."""
    with Release("other", "codealign-other", _volumes) as release:
        yield release
