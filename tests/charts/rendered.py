"""The chart as Helm renders it, for several sets of values, as lists of Kubernetes objects."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "codealign"
NAMESPACE = "lab"
RELEASE = "run"
FULL = f"{RELEASE}-codealign"
SERVICES = ("dataset", "coordinator", "sandbox", "inference", "trainer")
WORKERS = "inference-workers"
Manifest = dict[str, Any]

KINDS = ("keda.sh/v1alpha1", "cert-manager.io/v1", "monitoring.coreos.com/v1")
"""APIs that a cluster may have besides the built-in ones."""

CASES: Mapping[str, tuple[str, ...]] = {
    "defaults": (),
    "trial": ("--values=values-trial.yaml",),
    "gpu-single": ("--values=values-gpu-single.yaml",),
    "gpu-multi": ("--values=values-gpu-multi.yaml",),
    "no-tls": (
        *("--values=values-trial.yaml", "--set=tls.mode=disabled"),
        *("--set=console.enabled=true", "--set=console.access=proxy", "--set=console.hostNames={codealign.example}"),
    ),
    "no-tls-keda": ("--set=tls.mode=disabled", "--set=runners.scaling.mode=keda"),
    "cert-manager": (
        *("--set=tls.mode=certManager", "--set=runners.scaling.mode=keda", "--set=console.enabled=true"),
        '--set-json=console.clients=[{"podSelector":{"matchLabels":{"app":"desk"}}}]',
    ),
    "workers": (
        *("--values=values-gpu-workers.yaml", "--set=inference.workers.scaling.mode=fixed"),
        *("--set=inference.workers.scaling.max=3", "--set=inference.workers.gateway.replicas=2"),
        *("--set=inference.workers.dataParallel=2", "--set=inference.gpu.count=4"),
        *("--set=inference.workers.cache.kind=ephemeral", "--set=inference.workers.priorityClassName=generation"),
        "--set-json=inference.workers.topologySpreadConstraints="
        '[{"maxSkew":1,"topologyKey":"kubernetes.io/hostname","whenUnsatisfiable":"DoNotSchedule"}]',
    ),
    "workers-keda": ("--values=values-gpu-workers.yaml",),
    "no-tls-workers": (
        *("--values=values-trial.yaml", "--set=tls.mode=disabled", "--set=inference.workers.enabled=true"),
        "--set=inference.workers.scaling.mode=keda",
    ),
    "traces": ("--set=tracing.endpoint=http://otel.observability:14317", "--set=tracing.ratio=0.25"),
    "hpa": ("--set=runners.scaling.mode=hpa", "--set=fullnameOverride=other"),
    "elsewhere": (
        *("--set=postgresql.enabled=false", "--set=externalDatabase.url=postgresql://u:p@db.example:5432/x"),
        *(
            "--set=artifacts.existingClaim=shared",
            "--set=modelCache.existingClaim=models",
            "--set=hub.existingSecret=hf",
        ),
        *("--set=s3.existingSecret=keys", "--set=s3.endpoint=https://s3.example", "--set=s3.region=here"),
        *("--set=inference.engine=openai", "--set=inference.openai.baseUrl=https://llm.example/v1"),
        *("--set=inference.openai.existingSecret=llm", "--set=image.registry=registry.example/", "--set=image.tag=v9"),
    ),
}
"""Sets of values, including every values file of the chart."""


@functools.cache
def _helm() -> str:
    """Return Helm from PATH, or from a directory of cluster tools beside the project."""
    if found := shutil.which("helm"):
        return found
    archive = Path(__file__).parents[3] / "shared/k8s/bin/tools.tar.xz"
    if not archive.is_file():
        pytest.skip("no helm on PATH: the chart is not tested")
    folder = Path(tempfile.mkdtemp(prefix="helm-"))
    atexit.register(shutil.rmtree, folder)
    with tarfile.open(archive) as tools:
        (member,) = (each for each in tools if Path(each.name).name == "helm")
        member.name = "helm"
        tools.extract(member, folder, filter="data")
    return str(folder / "helm")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm without the user's cluster, caches and plugins."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent/config"}
    command = [_helm(), *arguments]
    return subprocess.run(command, cwd=CHART, env=environment, capture_output=True, text=True, check=False, timeout=60)


def template(*arguments: str, kinds: tuple[str, ...] = KINDS) -> subprocess.CompletedProcess[str]:
    """Render the chart."""
    apis = [f"--api-versions={kind}" for kind in kinds]
    return helm("template", RELEASE, ".", f"--namespace={NAMESPACE}", *apis, *arguments)


@functools.cache
def text_of(case: str) -> str:
    """Return one of CASES as rendered text, cached."""
    done = template(*CASES[case])
    assert done.returncode == 0, done.stderr
    return done.stdout


def has_workers(case: str) -> bool:
    """Return whether one of CASES has inference workers."""
    return "workers" in case


@dataclass(frozen=True)
class Pod:
    """A pod or pod template."""

    name: str
    labels: Mapping[str, str]
    spec: Manifest
    owner: Manifest
    """The object that contains it."""

    @property
    def component(self) -> str:
        """Its component of the release."""
        return self.labels["app.kubernetes.io/component"]

    def containers(self) -> list[Manifest]:
        """All containers, including init containers."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@dataclass(frozen=True)
class Rendered:
    """A rendered set of values."""

    documents: tuple[Manifest, ...]

    def of(self, kind: str) -> list[Manifest]:
        """Return all objects of a kind."""
        return [document for document in self.documents if document["kind"] == kind]

    def pods(self) -> Iterator[Pod]:
        """Return every pod and pod template."""
        for document in self.documents:
            name = document["metadata"]["name"]
            if document["kind"] == "Pod":
                yield Pod(name, document["metadata"]["labels"], document["spec"], document)
            elif "pod-template.yaml" in document.get("data", {}):  # the operator's
                made = yaml.safe_load(document["data"]["pod-template.yaml"])
                yield Pod("training-worker", made["metadata"]["labels"], made["spec"], {"kind": "Pod", "spec": {}})
            elif document["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet"):
                made = document["spec"]["template"]
                yield Pod(name, made["metadata"]["labels"], made["spec"], document)

    def pod(self, component: str) -> Pod:
        """Return the pod of a component."""
        (found,) = (pod for pod in self.pods() if pod.component == component)
        return found


def parsed(text: str) -> Rendered:
    """Parse Helm's output. The items of a List count as its own objects do: Helm creates them one after the other."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    return Rendered(tuple(each for document in documents for each in document.get("items", [document])))


@functools.cache
def rendered(case: str) -> Rendered:
    """Return one of CASES, rendered."""
    return parsed(text_of(case))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether a matchLabels selector matches these labels."""
    return selector.items() <= labels.items()
