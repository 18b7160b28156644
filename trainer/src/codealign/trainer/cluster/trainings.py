"""A cluster's trainings: each is a FineTuneJob, which the operator runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from codealign.api.training.v1 import training_pb2 as api
from codealign.common.clients import Clients
from codealign.common.errors import Unavailable
from codealign.common.health import Readiness
from codealign.common.logs import get_logger
from codealign.trainer.cluster.api import Cluster, Conflict
from codealign.trainer.cluster.mirror import MirrorError, library_of
from codealign.trainer.cluster.resource import (
    PLURAL,
    SUCCEEDED,
    Object,
    attempt,
    ended,
    resource_of,
    training_name,
    training_of,
)
from codealign.trainer.library import ENDED, Entry, no_such
from codealign.trainer.preparing import Place, prepare
from codealign.trainer.settings import TrainerSettings

log = get_logger(__name__)

_LOOK_UP_SECONDS = 1.0


class ClusterTrainings:
    """Creates FineTuneJobs and reports their state, including that of FineTuneJobs applied by users.

    Args:
        cluster: Client of the namespace.
        settings: The service's settings. The volume and the device must be the operator's.
        clients: Clients of the dataset service, if configured.
        readiness: Signals the shutdown, which ends watches.
    """

    def __init__(self, cluster: Cluster, settings: TrainerSettings, clients: Clients, readiness: Readiness) -> None:
        self._cluster = cluster
        self._clients = clients
        self._readiness = readiness
        self._library = library_of(settings.data_dir, settings.artifacts_url)
        self._final: set[str] = set()
        """Ended trainings that were read since; their files do not change."""
        # Cache of progress files, which are long. It can be lost: they are then read again.
        self._read: dict[str, Entry] = {}
        self._place = Place(
            library=self._library,
            cache_dir=settings.cache_dir,
            device="cuda" if settings.device == "cuda" else "cpu",
            threads=lambda _workers: settings.threads,  # overridden by the operator, which writes the job
            micro_batch_size=settings.micro_batch_size,
            max_restarts=0,
        )

    async def run(self) -> None:
        """Wait forever: the operator does the work."""
        await asyncio.Event().wait()

    async def submit(self, given: api.TrainingSpec) -> tuple[api.Training, bool]:
        """Create a FineTuneJob or find an existing one; restart it if it failed or was cancelled.

        Returns:
            The training, and whether it existed already.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition, Unavailable: As documented in the contract.
        """
        entry, needs = await prepare(given, self._place, self._clients)
        name = training_name(entry.training.id)
        existed = False
        try:
            resource = await self._cluster.create(PLURAL, resource_of(name, entry.training.spec))
        except Conflict:
            existed = True
            resource = await self._wanted_again(name, entry)
        training = await self._training(resource)
        training.id = entry.training.id
        training.rows = entry.training.rows
        training.estimate.memory_bytes, training.estimate.disk_bytes = needs.memory, needs.disk
        return training, existed

    async def get(self, training_id: str) -> api.Training:
        """Return a training's current state.

        Raises:
            NotFound: There is no training with this id.
        """
        return await self._training(await self._find(training_id))

    async def all(self) -> list[api.Training]:
        """Return all trainings, newest first."""
        found = await self._cluster.list(PLURAL)
        found.sort(key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]), reverse=True)
        return [await self._training(each) for each in found]

    async def watch(self, training_id: str) -> AsyncGenerator[api.Training]:
        """Yield a training's current state, then every change until it ends.

        Raises:
            NotFound: There is no training with this id.
            Unavailable: The service is stopping.
        """
        last = None
        while True:
            training = await self.get(training_id)
            if training != last:
                yield training
                last = training
            if training.state in ENDED:
                return
            try:
                async with asyncio.timeout(_LOOK_UP_SECONDS):
                    await self._readiness.draining.wait()
            except TimeoutError:
                continue
            raise Unavailable("the training service is stopping, but the training continues: watch it again")

    async def cancel(self, training_id: str) -> api.Training:
        """Cancel a training; do nothing if it has ended."""
        resource = await self._find(training_id)
        if ended(resource):
            return await self._training(resource)
        patched = await self._cluster.patch(PLURAL, resource["metadata"]["name"], {"spec": {"cancel": True}})
        if patched is None:
            raise no_such(training_id)
        training = await self._training(patched)
        if training.state not in ENDED:
            training.message = "cancelling"
        return training

    async def _wanted_again(self, name: str, entry: Entry) -> Object:
        resource = await self._cluster.get(PLURAL, name)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            raise Unavailable(f"FineTuneJob {name} is being deleted: submit again once it is gone", retry_after=5.0)
        cancelled = bool(resource["spec"].get("cancel"))
        state = (resource.get("status") or {}).get("state")
        try:
            removed = state == SUCCEEDED and not await asyncio.to_thread(self._library.has_result, entry)
        except MirrorError as error:
            raise Unavailable(
                f"the storage of the training's result cannot be read: {error}", retry_after=5.0
            ) from error
        # A cancelled training that has not ended yet ends first; the higher attempt then starts it again.
        if not (cancelled or (ended(resource) and (state != SUCCEEDED or removed))):
            return resource
        change: Object = {"spec": {"cancel": False, "attempt": attempt(resource) + 1}}
        change["metadata"] = {"resourceVersion": resource["metadata"]["resourceVersion"]}
        try:
            patched = await self._cluster.patch(PLURAL, name, change)
        except Conflict as error:  # changed by someone else, or the operator wrote its status: the caller retries
            raise Unavailable(f"FineTuneJob {name} was changed concurrently: submit again", retry_after=0.5) from error
        if patched is None:
            raise Unavailable(f"FineTuneJob {name} was deleted concurrently: submit again", retry_after=0.5)
        return patched

    async def _find(self, training_id: str) -> Object:
        """Find a FineTuneJob by the training's id or by its own name."""
        if training_id:
            if own := await self._cluster.get(PLURAL, training_name(training_id)):
                return own
            for each in await self._cluster.list(PLURAL):
                if training_id in ((each.get("status") or {}).get("trainingId"), each["metadata"]["name"]):
                    return each
        raise no_such(training_id)

    async def _training(self, resource: Object) -> api.Training:
        training = training_of(resource)
        if not ended(resource) and training.state in ENDED:  # the operator has not seen the new attempt yet
            training.state = api.TRAINING_STATE_PENDING
            training.message = "waiting to restart"
        try:
            entry = await asyncio.to_thread(self._entry, training.id, training.state in ENDED)
        except MirrorError as error:
            raise Unavailable(f"the training's progress cannot be read: {error}", retry_after=5.0) from error
        if entry is not None:
            training.losses.extend(entry.training.losses)
            training.truncated_rows = entry.training.truncated_rows
            training.trained_tokens = entry.training.trained_tokens
        return training

    def _entry(self, training_id: str, has_ended: bool) -> Entry | None:
        if not has_ended:  # it may have been restarted
            self._final.discard(training_id)
        if training_id not in self._final:
            self._library.fetch(training_id)
        if has_ended:
            self._final.add(training_id)
        entry = self._read.get(training_id) or self._library.read(training_id)
        if entry is not None:
            self._read[training_id] = entry
            entry.refresh()
        return entry
