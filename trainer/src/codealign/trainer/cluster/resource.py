"""The FineTuneJob resource: names, and conversion to the training service's contract. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format

from codealign.api.training.v1 import training_pb2 as api

GROUP, VERSION, PLURAL, KIND = "codealign.dev", "v1alpha1", "finetunejobs", "FineTuneJob"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/finetunejob"
NAME_LABEL = f"{GROUP}/finetunejob"
ATTEMPT_LABEL = f"{GROUP}/attempt"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

PENDING, RUNNING, SUSPENDED = "Pending", "Running", "Suspended"
SUCCEEDED, FAILED, CANCELLED = "Succeeded", "Failed", "Cancelled"
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED})

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

_OWN_FIELDS = frozenset(
    {"workersPerPod", "suspend", "cancel", "attempt", "activeDeadlineSeconds", "ttlSecondsAfterFinished"}
)
"""Fields of the spec that are not in the contract."""
_STATES = {
    PENDING: api.TRAINING_STATE_PENDING,
    SUSPENDED: api.TRAINING_STATE_PENDING,
    RUNNING: api.TRAINING_STATE_RUNNING,
    SUCCEEDED: api.TRAINING_STATE_SUCCEEDED,
    FAILED: api.TRAINING_STATE_FAILED,
    CANCELLED: api.TRAINING_STATE_CANCELLED,
}
_NUMBERS = (
    *("step", "totalSteps", "loss", "learningRate", "tokensPerSecond", "secondsLeft"),
    *("checkpointStep", "rows"),
)


def training_spec(resource: Mapping[str, Any]) -> api.TrainingSpec:
    """Return the training's specification in the contract's terms.

    Raises:
        ValueError: A field is unknown to the contract or has the wrong type.
    """
    given = {key: value for key, value in resource["spec"].items() if key not in _OWN_FIELDS}
    try:
        return json_format.ParseDict(given, api.TrainingSpec())
    except json_format.ParseError as error:
        raise ValueError(f"spec: {error}") from error


def resource_of(name: str, spec: api.TrainingSpec) -> Object:
    """Return a FineTuneJob for a specification.

    Args:
        name: The resource's name.
        spec: The specification with all defaults filled in.
    """
    fields = json_format.MessageToDict(spec)
    for number in ("seed", "maxSteps", "rows"):  # protobuf's JSON has 64-bit integers as strings
        if number in fields:
            fields[number] = int(fields[number])
    # Always set, since an explicit 0 differs from the default.
    fields["warmupRatio"] = spec.warmup_ratio
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": fields}


def training_name(training_id: str) -> str:
    """Return the name of the FineTuneJob that the training service creates."""
    return f"training-{training_id}"


def training_of(resource: Mapping[str, Any]) -> api.Training:
    """Return a FineTuneJob's state in the contract's terms, without losses."""
    status = resource.get("status") or {}
    name = resource["metadata"]["name"]
    training = api.Training(
        # Before preparation has found the training's id, only the name is known.
        id=status.get("trainingId") or name.removeprefix("training-"),
        state=_STATES.get(status.get("state", PENDING), api.TRAINING_STATE_UNSPECIFIED),
        message=status.get("message", "waiting for the operator; check that it is running"),
        checkpoint_id=status.get("checkpointId", ""),
        artifact_url=status.get("artifactUrl", ""),
        notes=status.get("notes", []),
    )
    try:
        training.spec.CopyFrom(training_spec(resource))
    except ValueError as error:
        training.notes.append(str(error))
    numbers = {key: status[key] for key in _NUMBERS if status.get(key) is not None}
    json_format.ParseDict(numbers, training)
    training.created_at.FromJsonString(resource["metadata"]["creationTimestamp"])
    if status.get("state") == SUSPENDED:
        training.message = f"suspended: {training.message}"
    return training


def attempt(resource: Mapping[str, Any]) -> int:
    """Return the number of the wanted attempt."""
    return int(resource["spec"].get("attempt", 1))


def ended(resource: Mapping[str, Any]) -> bool:
    """Return whether the resource has ended and its spec does not request another attempt."""
    status = resource.get("status") or {}
    if status.get("state") not in ENDED or status.get("attempt", 1) != attempt(resource):
        return False
    return status["state"] != CANCELLED or bool(resource["spec"].get("cancel"))


def now() -> str:
    """Return the current time in Kubernetes' format."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(moment: str) -> float:
    """Return the seconds since a Kubernetes timestamp."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def with_condition(
    conditions: list[Object], kind: str, status: bool, reason: str, message: str, generation: int
) -> list[Object]:
    """Return the conditions with one replaced; its transition time changes only with its status."""
    before = next((each for each in conditions if each["type"] == kind), None)
    word = "True" if status else "False"
    unmoved = before is not None and before["status"] == word
    condition = {
        "type": kind,
        "status": word,
        "reason": reason,
        "message": message,
        "lastTransitionTime": before["lastTransitionTime"] if before and unmoved else now(),
        "observedGeneration": generation,
    }
    return [*(each for each in conditions if each["type"] != kind), condition]
