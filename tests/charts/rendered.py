"""The chart as Helm renders it: each set of values, as lists of Kubernetes objects."""

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
Manifest = dict[str, Any]

KINDS = ("keda.sh/v1alpha1", "cert-manager.io/v1", "monitoring.coreos.com/v1")
"""APIs that a cluster may have beside its own."""

CASES: Mapping[str, tuple[str, ...]] = {
    "defaults": (),
    "trial": ("--values=values-trial.yaml",),
    "gpu-single": ("--values=values-gpu-single.yaml",),
    "gpu-multi": ("--values=values-gpu-multi.yaml",),
    "no-tls": ("--values=values-trial.yaml", "--set=tls.mode=disabled"),
    "no-tls-keda": ("--set=tls.mode=disabled", "--set=runners.scaling.mode=keda"),
    "cert-manager": ("--set=tls.mode=certManager", "--set=runners.scaling.mode=keda"),
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
"""Sets of values, among them every file that comes with the chart."""


@functools.cache
def _helm() -> str:
    """Helm on PATH, or the one in a folder of cluster tools that lies beside the project."""
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
    """Run Helm beside the chart, without anybody's cluster, caches or plugins."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent/config"}
    command = [_helm(), *arguments]
    return subprocess.run(command, cwd=CHART, env=environment, capture_output=True, text=True, check=False, timeout=60)


def template(*arguments: str, kinds: tuple[str, ...] = KINDS) -> subprocess.CompletedProcess[str]:
    """Render the chart."""
    apis = [f"--api-versions={kind}" for kind in kinds]
    return helm("template", RELEASE, ".", f"--namespace={NAMESPACE}", *apis, *arguments)


@functools.cache
def text_of(case: str) -> str:
    """One of CASES, rendered once."""
    done = template(*CASES[case])
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Pod:
    """A pod, or what makes pods."""

    name: str
    labels: Mapping[str, str]
    spec: Manifest
    owner: Manifest
    """The object that it stands in."""

    @property
    def component(self) -> str:
        """Which part of the release it is."""
        return self.labels["app.kubernetes.io/component"]

    def containers(self) -> list[Manifest]:
        """Those that prepare it, too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@dataclass(frozen=True)
class Rendered:
    """A set of values, rendered."""

    documents: tuple[Manifest, ...]

    def of(self, kind: str) -> list[Manifest]:
        """All objects of a kind."""
        return [document for document in self.documents if document["kind"] == kind]

    def pods(self) -> Iterator[Pod]:
        """Every pod that can come of it."""
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
        """The one of a component."""
        (found,) = (pod for pod in self.pods() if pod.component == component)
        return found


def parsed(text: str) -> Rendered:
    """What Helm printed."""
    return Rendered(tuple(document for document in yaml.safe_load_all(text) if document))


@functools.cache
def rendered(case: str) -> Rendered:
    """One of CASES."""
    return parsed(text_of(case))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a matchLabels selector takes these labels."""
    return selector.items() <= labels.items()
