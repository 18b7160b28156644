"""FineTuneJob, the resource: its names, and what it says in the terms of the training service's contract. Pure."""

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
"""A Kubernetes object as JSON has it."""

_OWN_FIELDS = frozenset(
    {"workersPerPod", "suspend", "cancel", "attempt", "activeDeadlineSeconds", "ttlSecondsAfterFinished"}
)
"""Fields of the spec that the contract does not know."""
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
    """What is trained, as the contract has it.

    Raises:
        ValueError: A field is none of the contract's, or of another type.
    """
    given = {key: value for key, value in resource["spec"].items() if key not in _OWN_FIELDS}
    try:
        return json_format.ParseDict(given, api.TrainingSpec())
    except json_format.ParseError as error:
        raise ValueError(f"spec: {error}") from error


def resource_of(name: str, spec: api.TrainingSpec) -> Object:
    """A FineTuneJob that trains as a specification says.

    Args:
        name: The resource's.
        spec: Completed.
    """
    fields = json_format.MessageToDict(spec)
    for number in ("seed", "maxSteps"):  # 64 bits are text in protobuf's JSON
        if number in fields:
            fields[number] = int(fields[number])
    # A zero that somebody set is told from what is left out only here.
    fields["warmupRatio"] = spec.warmup_ratio
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": fields}


def training_name(training_id: str) -> str:
    """The name of the FineTuneJob that the training service makes."""
    return f"training-{training_id}"


def training_of(resource: Mapping[str, Any]) -> api.Training:
    """How a FineTuneJob is, as the contract has it; losses are not in it."""
    status = resource.get("status") or {}
    name = resource["metadata"]["name"]
    training = api.Training(
        # Until it is known what exactly is trained, its name is all that there is.
        id=status.get("trainingId") or name.removeprefix("training-"),
        state=_STATES.get(status.get("state", PENDING), api.TRAINING_STATE_UNSPECIFIED),
        message=status.get("message", "waiting for the operator: is it running?"),
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
    """Which start of the training is wanted."""
    return int(resource["spec"].get("attempt", 1))


def ended(resource: Mapping[str, Any]) -> bool:
    """It has ended, and nothing else is wanted of it."""
    status = resource.get("status") or {}
    if status.get("state") not in ENDED or status.get("attempt", 1) != attempt(resource):
        return False
    return status["state"] != CANCELLED or bool(resource["spec"].get("cancel"))


def now() -> str:
    """This moment, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(moment: str) -> float:
    """Seconds that have passed since a moment that Kubernetes wrote."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def with_condition(
    conditions: list[Object], kind: str, status: bool, reason: str, message: str, generation: int
) -> list[Object]:
    """Conditions with one of them as it is now; its transition time moves with its status alone."""
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
