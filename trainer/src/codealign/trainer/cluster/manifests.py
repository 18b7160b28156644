"""The Kubernetes objects of a FineTuneJob: a headless Service and an Indexed Job. Pure functions."""

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
    """Read the pod template.

    Raises:
        ConfigurationError: The file cannot be read, or is not a PodTemplateSpec with a named container and its image.
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
            f"{where}: must be a PodTemplateSpec with spec.containers[0].name and .image "
            f"({type(error).__name__}: {error})"
        ) from None
    made: Object = template
    return made


def cpus(template: Mapping[str, Any]) -> int:
    """Return the cores of the training container: its CPU limit, else its request; at least 1."""
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
    """Return the name of a training's Job and Service. A training has one directory and therefore only one Job."""
    return f"ftj-{training_id}"


def pods_of(resource: Mapping[str, Any], workers_per_pod: int) -> int:
    """Return the number of pods of a FineTuneJob.

    Args:
        resource: The FineTuneJob.
        workers_per_pod: Workers per pod if the FineTuneJob does not set them.
    """
    workers = int(resource["spec"].get("workers", 1))
    wanted = int(resource["spec"].get("workersPerPod", 0)) or min(workers_per_pod, workers)
    # Use the largest number of workers per pod, up to the requested one, that fills all pods equally.
    here = max(size for size in range(1, wanted + 1) if workers % size == 0)
    return workers // here


def service(resource: Mapping[str, Any], training_id: str) -> Object:
    """Return the headless Service that gives each pod a DNS name."""
    name = job_name(training_id)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(resource, name),
        "spec": {
            "clusterIP": "None",
            # Pods must resolve each other before they are ready.
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
    """Return the Job whose pods run the training.

    Args:
        resource: The FineTuneJob, which owns the Job.
        training: The training program's job; its file is in the output directory.
        template: The pod template.
        pods: Number of pods.
        max_restarts: Maximum number of times that all pods fail together.
        variables: Additional environment variables.
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
        # When one pod fails, all fail, and each failure counts.
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
        # Kueue itself starts the Jobs in its queues.
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
