"""The trainings of a cluster: each is a FineTuneJob, which the operator sees to."""

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
    """Writes FineTuneJobs, and says how they are; those that people applied themselves too.

    Args:
        cluster: Where they are.
        settings: The service's. Its volume and device are the operator's.
        clients: Of the dataset service, where it is set.
        readiness: Says when the service is told to stop, which ends what watches.
    """

    def __init__(self, cluster: Cluster, settings: TrainerSettings, clients: Clients, readiness: Readiness) -> None:
        self._cluster = cluster
        self._clients = clients
        self._readiness = readiness
        self._library = library_of(settings.data_dir, settings.artifacts_url)
        self._final: set[str] = set()
        """Trainings that have ended and been read since: what they left does not change."""
        # Progress files are long: what was read of them is not read again. Losing it costs one reading.
        self._read: dict[str, Entry] = {}
        self._place = Place(
            library=self._library,
            cache_dir=settings.cache_dir,
            device="cuda" if settings.device == "cuda" else "cpu",
            threads=lambda _workers: settings.threads,  # the operator decides, which writes the job
            micro_batch_size=settings.micro_batch_size,
            max_restarts=0,
        )

    async def run(self) -> None:
        """Nothing is to be done here: the operator does it."""
        await asyncio.Event().wait()

    async def submit(self, given: api.TrainingSpec) -> tuple[api.Training, bool]:
        """Write a FineTuneJob, or find it again; one that failed or was cancelled is started anew.

        Returns:
            The training, and whether it was there already.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition, Unavailable: As the contract says.
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
        """A training as it is now.

        Raises:
            NotFound: There is none of this id.
        """
        return await self._training(await self._find(training_id))

    async def all(self) -> list[api.Training]:
        """Every training, newest first."""
        found = await self._cluster.list(PLURAL)
        found.sort(key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]), reverse=True)
        return [await self._training(each) for each in found]

    async def watch(self, training_id: str) -> AsyncGenerator[api.Training]:
        """A training as it is now, and again whenever it has changed, until it ends.

        Raises:
            NotFound: There is none of this id.
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
            raise Unavailable("the training service stops; the training goes on: watch again")

    async def cancel(self, training_id: str) -> api.Training:
        """Stop a training; one that has ended stays as it is."""
        resource = await self._find(training_id)
        if ended(resource):
            return await self._training(resource)
        patched = await self._cluster.patch(PLURAL, resource["metadata"]["name"], {"spec": {"cancel": True}})
        if patched is None:
            raise no_such(training_id)
        training = await self._training(patched)
        if training.state not in ENDED:
            training.message = "is being cancelled"
        return training

    async def _wanted_again(self, name: str, entry: Entry) -> Object:
        resource = await self._cluster.get(PLURAL, name)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            raise Unavailable(f"FineTuneJob {name} is being deleted: submit again when it is gone", retry_after=5.0)
        cancelled = bool(resource["spec"].get("cancel"))
        state = (resource.get("status") or {}).get("state")
        try:
            removed = state == SUCCEEDED and not await asyncio.to_thread(self._library.has_result, entry)
        except MirrorError as error:
            raise Unavailable(f"the training's result cannot be looked for: {error}", retry_after=5.0) from error
        # One that is cancelled and not at its end yet ends first: the higher attempt starts it then.
        if not (cancelled or (ended(resource) and (state != SUCCEEDED or removed))):
            return resource
        change: Object = {"spec": {"cancel": False, "attempt": attempt(resource) + 1}}
        change["metadata"] = {"resourceVersion": resource["metadata"]["resourceVersion"]}
        try:
            patched = await self._cluster.patch(PLURAL, name, change)
        except Conflict as error:  # somebody else did, or the operator wrote its status: the caller tries again
            raise Unavailable(f"FineTuneJob {name} changes at this moment: submit again", retry_after=0.5) from error
        if patched is None:
            raise Unavailable(f"FineTuneJob {name} was deleted at this moment: submit again", retry_after=0.5)
        return patched

    async def _find(self, training_id: str) -> Object:
        """By the training's id, or by the FineTuneJob's name."""
        if training_id:
            if own := await self._cluster.get(PLURAL, training_name(training_id)):
                return own
            for each in await self._cluster.list(PLURAL):
                if training_id in ((each.get("status") or {}).get("trainingId"), each["metadata"]["name"]):
                    return each
        raise no_such(training_id)

    async def _training(self, resource: Object) -> api.Training:
        training = training_of(resource)
        if not ended(resource) and training.state in ENDED:  # wanted again, and the operator has not seen it yet
            training.state = api.TRAINING_STATE_PENDING
            training.message = "waits to be started anew"
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
        if not has_ended:  # it may have been started anew
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
