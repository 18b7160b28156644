"""A FineTuneJob's status while it is computed, and the merge patch that updates the resource."""

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
    """An event to report to users."""

    reason: str
    message: str
    warning: bool


class Status:
    """The status of a FineTuneJob.

    Args:
        resource: The FineTuneJob as read.
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
        """The current state."""
        return str(self.fields["state"])

    @property
    def prepared(self) -> bool:
        """Whether this attempt has found everything that the specification names."""
        return self._is("Prepared")

    def reason(self, kind: str) -> str:
        """Return a condition's reason, or an empty string if it is not set."""
        return next((str(each["reason"]) for each in self._conditions() if each["type"] == kind), "")

    def prepare(self, done: bool, reason: str, message: str, *, silent: bool = False) -> None:
        """Report whether everything that the specification names was found."""
        self._condition("Prepared", done, reason, message, silent=silent)
        if not done:
            self.fields["message"] = message

    def wait(self, reason: str, message: str, *, warning: bool = False, trained: bool = False) -> None:
        """Report that no pod is training: pending, or finished if `trained`."""
        self.fields.update(state=RUNNING if trained else PENDING, message=message)
        self._condition("Running", False, reason, message, warning=warning)
        self._not_suspended()

    def run(self, message: str) -> None:
        """Report that pods are training."""
        self.fields.update(state=RUNNING, message=message)
        self.fields.setdefault("startTime", now())
        self._condition("Running", True, "PodsRun", message)
        self._not_suspended()

    def suspend(self, reason: str, message: str) -> None:
        """Report that the training is suspended."""
        self.fields.update(state=SUSPENDED, message=message)
        self._condition("Suspended", True, reason, message)
        self._condition("Running", False, reason, message, silent=True)

    def succeed(self, message: str) -> None:
        """Report success."""
        self._end(SUCCEEDED, message)
        self._condition("Succeeded", True, "Trained", message)
        self._condition("Running", False, "Trained", message, silent=True)

    def fail(self, reason: str, message: str) -> None:
        """Report a permanent failure."""
        self._end(FAILED, message)
        self._condition("Failed", True, reason, message, warning=True)
        self._condition("Running", False, reason, message, silent=True)

    def cancel(self, message: str) -> None:
        """Report cancellation, as a Failed condition for those who wait for Succeeded or Failed."""
        self._end(CANCELLED, message)
        self._condition("Failed", True, "Cancelled", message)
        self._condition("Running", False, "Cancelled", message, silent=True)

    def begin_anew(self) -> None:
        """Reset an ended FineTuneJob for another attempt."""
        wanted = attempt(self._resource)
        message = f"attempt {wanted}: continues from the last checkpoint"
        for key in ("completionTime", "artifactUrl", "checkpointId", "jobName", "pods"):
            self.fields.pop(key, None)
        self.fields["attempt"] = wanted
        for kind in ("Prepared", "Failed", "Succeeded"):
            self._condition(kind, False, "StartedAnew", message, silent=True)
        self.wait("StartedAnew", message)

    def progress(self, entry: Entry) -> None:
        """Copy the training program's progress, except for the loss curve, which stays in its file."""
        training = entry.training
        for key, name in _PROGRESS.items():
            if value := getattr(training, name):
                self.fields[key] = value
        if not training.checkpoint_step and entry.reader.progress.starts:  # it started over: the checkpoint was no use
            self.fields.pop("checkpointStep", None)
        self.fields.pop("secondsLeft", None)
        if training.HasField("seconds_left") and self.state == RUNNING:
            self.fields["secondsLeft"] = round(training.seconds_left, 1)
        self.fields["restarts"] = max(0, entry.reader.progress.starts - 1)
        for text in training.notes:
            self.note(text)

    def note(self, text: str) -> None:
        """Add a note unless it is already there."""
        notes = self.fields.setdefault("notes", [])
        if text not in notes:
            notes.append(text)

    def patch(self) -> Object:
        """Return the changes as a merge patch; empty if nothing has changed."""
        gone: Object = dict.fromkeys(self._before.keys() - self.fields.keys())
        changed = {key: value for key, value in self.fields.items() if self._before.get(key) != value}
        return {**changed, **gone}

    def written(self, now_there: Object) -> None:
        """Record the status that was written to the resource."""
        self._before = copy.deepcopy(now_there)

    def _end(self, state: str, message: str) -> None:
        self.fields.update(state=state, message=message, completionTime=now())
        self.fields.pop("secondsLeft", None)
        self._not_suspended()

    def _not_suspended(self) -> None:
        if self._is("Suspended"):
            self._condition("Suspended", False, "Resumed", "no longer suspended")

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
