"""All workers, the models that are to be served, and what each worker has to load or unload. Pure.

A model is served with one revision: that which LoadModel demanded, else the one that workers have. A worker with other
weights under the same name is not used for it.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from codealign.inference.gateway.members import Action, Load, Unload, Worker
from codealign.inference.gateway.work import RETRY_SECONDS, ModelKey
from codealign.inference.wanted import WantedModels

_UNLOAD_AFTER_SECONDS = 5.0
"""A removed model that a worker still has is unloaded after this time: another gateway may be about to record that it
is wanted again."""
_AGREE_AGAIN_SECONDS = 30.0
"""Another revision takes over if no worker has had the present one for this long. Longer than a worker's restart."""


_START_SECONDS = 900.0
"""A worker that has not responded for so long does not start any more. Fetching its image may take minutes."""


class Fleet:
    """The workers by address, and the models that are to be served.

    Attributes:
        wanted: What is to be served.
        workers: The workers that were found.
        has_reported: Whether any worker has ever responded. Before that, nothing is known of the models.
    """

    def __init__(self) -> None:
        self.wanted = WantedModels()
        self.workers: dict[str, Worker] = {}
        self.has_reported = False
        self._last_known: dict[str, pb.Model] = {}
        # When a worker last had the revision that is served, by model name.
        self._had: dict[str, tuple[str, float]] = {}

    def report(self, address: str, response: pb.SyncModelsResponse, now: float, now_ms: int) -> None:
        """Take over what a worker reported."""
        self.has_reported = True
        self.wanted.merge(response.wanted, now_ms)
        removed = {entry.name for entry in self.wanted.entries if entry.removed}
        self.workers[address].responded(response.models, removed, now)
        self._agree(now)

    # Models

    def key_of(self, name: str, field: str, now: float) -> ModelKey:
        """Return the model that a request means.

        Args:
            name: The model's name; empty selects the only one.
            field: The request field with the name, for error messages.
            now: The time.

        Raises:
            NotFound: No such model is served.
            InvalidArgument: The name is empty and several models are served.
            FailedPrecondition: The name is empty and no model is served.
            Unavailable: No worker has the model yet, or none has responded yet.
        """
        wanted = [entry for entry in self.wanted.wanted if name in ("", entry.name)]
        if not wanted and not self._is_informed():
            raise Unavailable(f"not all workers have responded yet: {self._troubles()}", retry_after=RETRY_SECONDS)
        if not wanted and name:
            raise NotFound(f"model {name} is not loaded; {self.others()}")
        if not wanted:
            raise FailedPrecondition(self.others())
        if len(wanted) > 1:
            raise InvalidArgument(field, f"is empty but {len(wanted)} models are loaded: name one; {self.others()}")
        key = ModelKey(wanted[0].name, wanted[0].revision)
        if not key.revision:
            raise Unavailable(f"model {key.name} is not loaded yet: {self.why(key, now)}", retry_after=RETRY_SECONDS)
        return key

    def others(self) -> str:
        """Return which models there are, for an error about one that is not."""
        names = sorted(entry.name for entry in self.wanted.wanted)
        return f"loaded: {', '.join(names)}" if names else "no model is loaded: load one with LoadModel"

    def serves(self, address: str, now: float) -> dict[ModelKey, pb.Model]:
        """Return the models for which a worker may get samples."""
        worker = self.workers.get(address)
        if worker is None or worker.problem(now):
            return {}
        found = {
            ModelKey(entry.name, entry.revision): worker.models[entry.name]
            for entry in self.wanted.wanted
            if entry.revision and entry.name in worker.models
        }
        return {key: model for key, model in found.items() if model.revision == key.revision}

    def servers(self, key: ModelKey, now: float) -> list[str]:
        """Return the workers that serve a model."""
        return [address for address in self.workers if key in self.serves(address, now)]

    def count(self, now: float) -> collections.Counter[str]:
        """Return the number of workers by state.

        The states are "ready" (it serves a model), "loading" (it responds and serves none yet), "refused" (it responds
        and can have none), "unavailable" (it does not respond) and "aside" (it is set aside after a fault).
        """
        return collections.Counter(self._state(worker, now) for worker in self.workers.values())

    def starting(self, now: float) -> int:
        """Return the number of workers that load a model, or do not respond and may be about to start."""
        return sum(self._starts(worker, now) for worker in self.workers.values())

    def model(self, name: str, now: float) -> pb.Model:
        """Describe a wanted model and its state at each worker. What no worker ever told is empty."""
        entry = self.wanted.get(name) or pb.WantedModel(name=name)
        key = ModelKey(name, entry.revision)
        served = [self.serves(address, now)[key] for address in self.servers(key, now)]
        known = served[0] if served else self._last_known.get(name)
        described = pb.Model(name=name, source=entry.source, revision=entry.revision)
        if known is not None and known.revision == key.revision:
            described.CopyFrom(known)
        if served:
            described.context_length = min(model.context_length for model in served)
            described.batch_invariant = all(model.batch_invariant for model in served)
            described.unproved = next((model.unproved for model in served if model.unproved), "")
        described.slots = sum(model.slots for model in served)
        del described.replicas[:]
        described.replicas.extend(worker.replica(key, entry.source, now) for worker in self.workers.values())
        return described

    def why(self, key: ModelKey, now: float) -> str:
        """Return why no worker serves a model: one phrase for each worker."""
        if not self.workers:
            return "no worker was found"
        entry = self.wanted.get(key.name)
        source = entry.source if entry is not None else ""
        states = (worker.replica(key, source, now) for worker in self.workers.values())
        return "; ".join(f"{each.worker}: {each.reason or 'it is loading the model'}" for each in states)

    # Actions

    def plan(self, address: str, now: float) -> Action | None:
        """Return what a worker has to do next, or None. Models that were wanted first are loaded first."""
        worker = self.workers.get(address)
        if worker is None or worker.problem(now):
            return None
        for name, since in worker.removed_since.items():
            if now - since >= _UNLOAD_AFTER_SECONDS:
                return Unload(name)
        for entry in self.wanted.wanted:
            model = worker.models.get(entry.name)
            # A revision that was demanded replaces another one. Otherwise the other one stays: during an update the
            # new workers have it, and it takes over when the old ones are gone.
            if model is not None and not (entry.pinned and model.revision != entry.revision):
                continue
            load = Load(entry.name, entry.source, self.demanded(entry))
            if worker.may_try(load, now):
                return load if model is None else Unload(entry.name)
        return None

    def refusals(self, address: str, now: float) -> dict[str, str]:
        """Return why a worker serves none of a wanted model's samples, by the models that it refuses."""
        worker = self.workers[address]
        replicas = {
            entry.name: worker.replica(ModelKey(entry.name, entry.revision), entry.source, now)
            for entry in self.wanted.wanted
        }
        return {name: each.reason for name, each in replicas.items() if each.state == pb.REPLICA_STATE_REFUSED}

    def demanded(self, entry: pb.WantedModel) -> str:
        """Return the revision that a worker must load. Empty: any, since nobody asked for one and no worker has one."""
        return entry.revision if entry.pinned or self._is_there(entry) else ""

    # Inside

    def _state(self, worker: Worker, now: float) -> str:
        if worker.trouble:
            return "unavailable"
        if worker.problem(now):
            return "aside"
        if self.serves(worker.address, now) or not self.wanted.wanted:
            return "ready"
        cannot = (
            worker.cannot_have(ModelKey(entry.name, entry.revision), entry.source, now) for entry in self.wanted.wanted
        )
        return "refused" if all(cannot) else "loading"

    def _starts(self, worker: Worker, now: float) -> bool:
        state = self._state(worker, now)
        since = now if worker.failing_since is None else worker.failing_since
        return state == "loading" or (state == "unavailable" and now - since < _START_SECONDS)

    def _agree(self, now: float) -> None:
        """Record the models that workers have, and their revisions, where nobody asked for another one."""
        in_use = [worker for worker in self.workers.values() if not worker.problem(now)]
        for name in sorted({name for worker in in_use for name in worker.models}):
            models = [worker.models[name] for worker in in_use if name in worker.models]
            most = _most_common(models)
            entry = self.wanted.get(name)
            if entry is None:
                if self._is_informed():  # Others may know what is wanted.
                    self.wanted.find(name, most.source, most.revision)
            elif not entry.removed and not entry.pinned and self._is_gone(entry, models, now) and self._is_informed():
                self.wanted.agree(name, most.revision)
            entry = self.wanted.get(name)
            for model in models:
                if entry is not None and model.revision == entry.revision:
                    self._last_known[name] = model

    def _is_gone(self, entry: pb.WantedModel, models: Iterable[pb.Model], now: float) -> bool:
        """Return whether no worker has had a model's revision for some time."""
        if not entry.revision:
            return True
        revision, seen = self._had.get(entry.name, ("", now))
        if revision != entry.revision or any(model.revision == entry.revision for model in models):
            self._had[entry.name] = entry.revision, now
            return False
        return now - seen > _AGREE_AGAIN_SECONDS

    def _is_there(self, entry: pb.WantedModel) -> bool:
        """Return whether any worker has the revision that is served."""
        there = (worker.models.get(entry.name) for worker in self.workers.values() if not worker.trouble)
        return any(model is not None and model.revision == entry.revision for model in there)

    def _is_informed(self) -> bool:
        """Return whether what is wanted must be known: a worker has told, or all have nothing to tell."""
        return self.has_reported and all(worker.was_asked for worker in self.workers.values())

    def _troubles(self) -> str:
        if not self.workers:
            return "none was found"
        silent = (worker for worker in self.workers.values() if worker.trouble)
        return "; ".join(f"{worker.address}: {worker.trouble}" for worker in silent)


def require_same(entry: pb.WantedModel, source: str, expected_revision: str) -> None:
    """Refuse to load another model under a name that is in use.

    Raises:
        FailedPrecondition: The source or the revision differs.
    """
    if entry.source.rstrip("/") != source.rstrip("/"):
        raise FailedPrecondition(
            f"model name {entry.name} is in use by {entry.source}: unload that model, or choose another name for "
            f"{source}"
        )
    if expected_revision and entry.revision and entry.revision != expected_revision:
        raise FailedPrecondition(
            f"{entry.name} is loaded from {entry.source} at revision {entry.revision}, not {expected_revision}: unload "
            "it to load the source's current revision"
        )


def _most_common(models: Iterable[pb.Model]) -> pb.Model:
    """Return a model of the revision that most have; of equally common ones, of the smallest."""
    found = list(models)
    counts = collections.Counter(model.revision for model in found)
    best = min(counts, key=lambda revision: (-counts[revision], revision))
    return next(model for model in found if model.revision == best)
