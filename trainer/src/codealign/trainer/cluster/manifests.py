"""What a FineTuneJob becomes in the cluster: a headless Service and an Indexed Job. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from codealign.common.errors import ConfigurationError
from codealign.trainer.cluster import worker
from codealign.trainer.cluster.resource import API_VERSION, ATTEMPT_LABEL, KIND, NAME_LABEL, QUEUE_LABEL, Object
from codealign.trainer.cluster.resource import attempt as attempt_of
from codealign.trainer.sft.job import Job

_COMPONENT = "app.kubernetes.io/component"


def read_template(path: Path) -> Object:
    """The pods' template.

    Raises:
        ConfigurationError: The file cannot be read, or is no PodTemplateSpec with a container that has an image.
    """
    where = f"CODEALIGN_OPERATOR_POD_TEMPLATE {path}"
    try:
        template = yaml.safe_load(path.read_text())
        containers = template["spec"]["containers"]
        if not containers[0]["image"] or not containers[0]["name"]:
            raise KeyError("image")
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise ConfigurationError(
            f"{where}: no PodTemplateSpec with spec.containers[0].name and .image ({type(error).__name__}: {error})"
        ) from None
    made: Object = template
    return made


def cpus(template: Mapping[str, Any]) -> int:
    """Cores that the training container may count on: its limit, else its request; at least 1."""
    resources = template["spec"]["containers"][0].get("resources") or {}
    for kind in ("limits", "requests"):
        if text := str((resources.get(kind) or {}).get("cpu", "")):
            try:
                cores = Decimal(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)
            except InvalidOperation:
                continue
            return max(1, int(cores))
    return 1


def job_name(training_id: str) -> str:
    """The Job's and the Service's name. One training has one Job, whoever wants it: its folder is one."""
    return f"ftj-{training_id}"


def pods_of(resource: Mapping[str, Any], workers_per_pod: int) -> int:
    """How many pods a FineTuneJob takes.

    Args:
        resource: The FineTuneJob.
        workers_per_pod: Where it does not say.
    """
    workers = int(resource["spec"].get("workers", 1))
    wanted = int(resource["spec"].get("workersPerPod", 0)) or min(workers_per_pod, workers)
    # A pod holds as many as are wanted, or the next lower number that leaves no pod with fewer.
    here = max(size for size in range(1, wanted + 1) if workers % size == 0)
    return workers // here


def service(resource: Mapping[str, Any], training_id: str) -> Object:
    """The headless Service that gives each pod a DNS name."""
    name = job_name(training_id)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(resource, name),
        "spec": {
            "clusterIP": "None",
            # Pods find each other before anything in them is ready.
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name},
            "ports": [{"name": "gather", "port": worker.DEFAULT_PORT, "protocol": "TCP"}],
        },
    }


def job(
    resource: Mapping[str, Any],
    training: Job,
    template: Mapping[str, Any],
    *,
    pods: int,
    max_restarts: int,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Object:
    """The Job whose pods train.

    Args:
        resource: The FineTuneJob, which owns it.
        training: What the training program is to do; its file lies in the output folder.
        template: The pods' template.
        pods: How many.
        max_restarts: How often all pods may end badly together.
        variables: Further ones of the environment.
    """
    name = job_name(training.training_id)
    queue = (resource["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    metadata = _metadata(resource, name)
    if queue:
        metadata["labels"][QUEUE_LABEL] = queue
    pod = _pod(resource, training, template, {worker.PODS: str(pods), **variables})
    spec: Object = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        # Where one pod ends badly all do, and each of them counts.
        "backoffLimit": max_restarts * pods,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": pod["spec"]["containers"][0]["name"],
                        "operator": "In",
                        "values": [worker.CANNOT_GO_ON],
                    },
                },
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        # What Kueue has queued is its own to start.
        "suspend": bool(queue or resource["spec"].get("suspend")),
        "template": pod,
    }
    if deadline := resource["spec"].get("activeDeadlineSeconds"):
        spec["activeDeadlineSeconds"] = deadline
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _pod(
    resource: Mapping[str, Any], training: Job, template: Mapping[str, Any], variables: Mapping[str, str]
) -> Object:
    name = job_name(training.training_id)
    pod: Object = {"metadata": {}, **copy.deepcopy(dict(template))}
    labels = dict(pod["metadata"].get("labels") or {})
    pod["metadata"]["labels"] = {**labels, **_metadata(resource, name)["labels"]}
    spec = pod["spec"]
    spec["restartPolicy"] = "Never"
    spec["subdomain"] = name
    container = spec["containers"][0]
    container["command"] = ["python3", "-P", "-m", "codealign.trainer.cluster.worker"]
    container["args"] = [str(training.output / "job.json")]
    container["env"] = [
        *(container.get("env") or []),
        *({"name": key, "value": value} for key, value in variables.items()),
        {"name": worker.FIRST_POD, "value": f"{name}-0.{name}"},
    ]
    return pod


def _metadata(resource: Mapping[str, Any], name: str) -> Object:
    owner = resource["metadata"]
    return {
        "name": name,
        "labels": {
            "app.kubernetes.io/managed-by": "codealign-operator",
            _COMPONENT: "training-worker",
            NAME_LABEL: owner["name"],
            ATTEMPT_LABEL: str(attempt_of(resource)),
        },
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": owner["name"],
                "uid": owner["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
