"""One worker as the gateway last saw it: its models, its refusals, and whether it may be used. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.inference.gateway.work import ModelKey

_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0
"""Seconds until a worker that refused a model is asked again; doubled each time."""
_LONGEST_PAUSE_IF_PASSING = 30.0
_ASIDE_SECONDS, _LONGEST_ASIDE_SECONDS = 30.0, 600.0
"""Seconds for which a worker that misbehaved gets no work; doubled each time until it behaves."""
_FAULTS_IN_A_ROW = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """A worker has to load a model."""

    name: str
    source: str
    revision: str
    """The revision to demand. Empty: any."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unload:
    """A worker has to unload a model."""

    name: str


Action = Load | Unload


@dataclasses.dataclass(slots=True)
class _Refusal:
    action: Load
    reason: str
    ask_again: float
    pause: float
    passes: bool


class Worker:
    """The state of one worker.

    Attributes:
        address: host:port.
        models: The models that it reported last, by name.
        trouble: Why it is not used. Empty: it responds.
        was_asked: Whether it has responded or failed to.
        failing_since: When it first failed to respond since it last did. None: it has not failed.
        loading: Names of the models that it has been asked to load.
        removed_since: Removed models that it still has, and since when that is known.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.models: dict[str, pb.Model] = {}
        self.trouble = "it has not responded yet"
        self.was_asked = False
        self.failing_since: float | None = None
        self.loading: set[str] = set()
        self.removed_since: dict[str, float] = {}
        self._refusals: dict[str, _Refusal] = {}
        self._aside_until = 0.0
        self._aside_reason = ""
        self._faults_in_a_row = 0
        self._times_aside = 0

    def problem(self, now: float) -> str:
        """Return why it gets no work, or "" if it may."""
        return self.trouble or (self._aside_reason if now < self._aside_until else "")

    def responded(self, models: Sequence[pb.Model], removed: Collection[str], now: float) -> None:
        """Record a response.

        Args:
            models: The models that are loaded there.
            removed: Names of models that are not to be served.
            now: The time.
        """
        self.was_asked, self.trouble, self.failing_since = True, "", None
        self.models = {model.name: model for model in models}
        self.removed_since = {name: self.removed_since.get(name, now) for name in self.models if name in removed}

    def failed(self, reason: str, now: float) -> None:
        """Record that it does not respond."""
        self.was_asked, self.trouble = True, reason
        if self.failing_since is None:
            self.failing_since = now

    def misbehaved(self, reason: str, now: float, *, certainly: bool) -> None:
        """Record a fault of a worker that responds. It is set aside at once, or after several in a row.

        Args:
            reason: What it did.
            now: The time.
            certainly: No request can be the cause.
        """
        if now < self._aside_until:
            return
        self._faults_in_a_row += 1
        if certainly or self._faults_in_a_row >= _FAULTS_IN_A_ROW:
            seconds = min(_LONGEST_ASIDE_SECONDS, _ASIDE_SECONDS * 2 ** min(self._times_aside, 10))
            self._times_aside += 1
            self._faults_in_a_row = 0
            self._aside_until, self._aside_reason = now + seconds, f"set aside for {seconds:.0f} s: {reason}"

    def behaved(self) -> None:
        """Record a good answer."""
        self._faults_in_a_row = self._times_aside = 0

    def refused(self, action: Load, reason: str, now: float, *, passes: bool = False) -> None:
        """Record why it cannot have a model. It is asked again later, or when what is wanted has changed.

        Args:
            action: What it was asked for.
            reason: What it answered.
            now: The time.
            passes: The reason is expected to pass: the source does not respond, or the server beside it still starts.
        """
        before = self._refusals.get(action.name)
        longest = _LONGEST_PAUSE_IF_PASSING if passes else _LONGEST_PAUSE
        pause = min(longest, before.pause * 2) if before and before.action == action else _FIRST_PAUSE
        self._refusals[action.name] = _Refusal(action, reason, now + pause, pause, passes)

    def loaded(self, name: str) -> None:
        """Record that it has loaded a model."""
        self._refusals.pop(name, None)

    def may_try(self, action: Load, now: float) -> bool:
        """Return whether it should be asked for a model now."""
        refusal = self._refusals.get(action.name)
        return refusal is None or refusal.action != action or now >= refusal.ask_again

    def cannot_have(self, key: ModelKey, source: str, now: float) -> bool:
        """Return whether it refuses a model for a reason that is not expected to pass."""
        if self.replica(key, source, now).state != pb.REPLICA_STATE_REFUSED:
            return False
        refusal = self._refusals.get(key.name)
        return key.name in self.models or refusal is None or not refusal.passes

    def replica(self, key: ModelKey, source: str, now: float) -> pb.Replica:
        """Return the state of a model here.

        Args:
            key: The model.
            source: Where it is to be loaded from.
            now: The time.
        """
        found = pb.Replica(worker=self.address, state=pb.REPLICA_STATE_LOADING)
        model, refusal = self.models.get(key.name), self._refusals.get(key.name)
        if problem := self.problem(now):
            found.state, found.reason = pb.REPLICA_STATE_UNAVAILABLE, problem
        elif model is not None and model.revision == key.revision:
            found.state, found.slots = pb.REPLICA_STATE_READY, model.slots
        elif key.name in self.loading:
            pass
        elif model is not None and key.revision:
            found.state, found.reason = pb.REPLICA_STATE_REFUSED, _other_revision(model, key, source)
        elif refusal is not None and refusal.action.source == source:
            found.state, found.reason = pb.REPLICA_STATE_REFUSED, refusal.reason
        return found


def _other_revision(model: pb.Model, key: ModelKey, source: str) -> str:
    other = f" (loaded from {model.source}; the model's source is {source})" if model.source != source else ""
    return f"it has revision {model.revision} of {key.name}, not {key.revision}{other}"
