"""A FineTuneJob's status while it is worked out, and the patch that brings the resource to it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from codealign.trainer.cluster.resource import (
    CANCELLED,
    ENDED,
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    SUSPENDED,
    Object,
    attempt,
    now,
    with_condition,
)
from codealign.trainer.library import Entry

_PROGRESS = {
    "step": "step",
    "totalSteps": "total_steps",
    "loss": "loss",
    "learningRate": "learning_rate",
    "tokensPerSecond": "tokens_per_second",
    "checkpointStep": "checkpoint_step",
    "rows": "rows",
}


@dataclass(frozen=True)
class Happening:
    """Something that a person looks for among the events."""

    reason: str
    message: str
    warning: bool


class Status:
    """What is to be said of a FineTuneJob.

    Args:
        resource: As it was read.
    """

    def __init__(self, resource: Object) -> None:
        self._resource = resource
        self._before: Object = resource.get("status") or {}
        self.fields: Object = copy.deepcopy(self._before)
        self.fields.setdefault("state", PENDING)
        if self.state not in ENDED:
            self.fields["attempt"] = attempt(resource)
        self.fields["observedGeneration"] = resource["metadata"].get("generation", 0)
        self.happenings: list[Happening] = []

    @property
    def state(self) -> str:
        """Its state by now."""
        return str(self.fields["state"])

    @property
    def prepared(self) -> bool:
        """What the specification names was found, in this attempt."""
        return self._is("Prepared")

    def reason(self, kind: str) -> str:
        """Why a condition is as it is; empty where it is not there."""
        return next((str(each["reason"]) for each in self._conditions() if each["type"] == kind), "")

    def prepare(self, done: bool, reason: str, message: str, *, silent: bool = False) -> None:
        """Say whether what the specification names was found."""
        self._condition("Prepared", done, reason, message, silent=silent)
        if not done:
            self.fields["message"] = message

    def wait(self, reason: str, message: str, *, warning: bool = False, trained: bool = False) -> None:
        """No pod trains for now, or has to any more."""
        self.fields.update(state=RUNNING if trained else PENDING, message=message)
        self._condition("Running", False, reason, message, warning=warning)
        self._not_suspended()

    def run(self, message: str) -> None:
        """Its pods train."""
        self.fields.update(state=RUNNING, message=message)
        self.fields.setdefault("startTime", now())
        self._condition("Running", True, "PodsRun", message)
        self._not_suspended()

    def suspend(self, reason: str, message: str) -> None:
        """It is held back."""
        self.fields.update(state=SUSPENDED, message=message)
        self._condition("Suspended", True, reason, message)
        self._condition("Running", False, reason, message, silent=True)

    def succeed(self, message: str) -> None:
        """It has a result."""
        self._end(SUCCEEDED, message)
        self._condition("Succeeded", True, "Trained", message)
        self._condition("Running", False, "Trained", message, silent=True)

    def fail(self, reason: str, message: str) -> None:
        """It cannot go on."""
        self._end(FAILED, message)
        self._condition("Failed", True, reason, message, warning=True)
        self._condition("Running", False, reason, message, silent=True)

    def cancel(self, message: str) -> None:
        """It was stopped. Whoever waits for its end waits for Succeeded or Failed."""
        self._end(CANCELLED, message)
        self._condition("Failed", True, "Cancelled", message)
        self._condition("Running", False, "Cancelled", message, silent=True)

    def begin_anew(self) -> None:
        """It had ended and is wanted again."""
        wanted = attempt(self._resource)
        message = f"attempt {wanted}: goes on from the last checkpoint"
        for key in ("completionTime", "artifactUrl", "checkpointId", "jobName", "pods"):
            self.fields.pop(key, None)
        self.fields["attempt"] = wanted
        for kind in ("Prepared", "Failed", "Succeeded"):
            self._condition(kind, False, "StartedAnew", message, silent=True)
        self.wait("StartedAnew", message)

    def progress(self, entry: Entry) -> None:
        """Take over what the training program says; the loss curve stays in its file."""
        training = entry.training
        for key, name in _PROGRESS.items():
            if value := getattr(training, name):
                self.fields[key] = value
        self.fields.pop("secondsLeft", None)
        if training.HasField("seconds_left") and self.state == RUNNING:
            self.fields["secondsLeft"] = round(training.seconds_left, 1)
        self.fields["restarts"] = max(0, entry.reader.progress.starts - 1)
        for text in training.notes:
            self.note(text)

    def note(self, text: str) -> None:
        """Add a note, once."""
        notes = self.fields.setdefault("notes", [])
        if text not in notes:
            notes.append(text)

    def patch(self) -> Object:
        """What has changed, as a merge patch; empty where nothing has."""
        gone: Object = dict.fromkeys(self._before.keys() - self.fields.keys())
        changed = {key: value for key, value in self.fields.items() if self._before.get(key) != value}
        return {**changed, **gone}

    def written(self, now_there: Object) -> None:
        """The resource has it by now."""
        self._before = copy.deepcopy(now_there)

    def _end(self, state: str, message: str) -> None:
        self.fields.update(state=state, message=message, completionTime=now())
        self.fields.pop("secondsLeft", None)
        self._not_suspended()

    def _not_suspended(self) -> None:
        if self._is("Suspended"):
            self._condition("Suspended", False, "Resumed", "is not held back any more")

    def _is(self, kind: str) -> bool:
        return any(each["type"] == kind and each["status"] == "True" for each in self._conditions())

    def _conditions(self) -> list[Any]:
        found: list[Any] = self.fields.get("conditions", [])
        return found

    def _condition(
        self, kind: str, status: bool, reason: str, message: str, *, warning: bool = False, silent: bool = False
    ) -> None:
        before = next((each for each in self._conditions() if each["type"] == kind), None)
        self.fields["conditions"] = with_condition(
            self._conditions(), kind, status, reason, message, self.fields["observedGeneration"]
        )
        if not silent and (before is None or (before["status"] == "True", before["reason"]) != (status, reason)):
            self.happenings.append(Happening(reason, message, warning))
