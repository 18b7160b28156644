"""LoadModel and UnloadModel at the gateway: they record what is to be served, and make at least one worker serve it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable

import grpc

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import CodeAlignError, FailedPrecondition, NotFound, Unavailable, describe
from codealign.common.logs import get_logger
from codealign.inference.gateway.answers import STOPS, passed_on
from codealign.inference.gateway.exchange import Exchange
from codealign.inference.gateway.fleet import Fleet, require_same
from codealign.inference.gateway.links import Link, Links
from codealign.inference.gateway.members import Load
from codealign.inference.gateway.work import RETRY_SECONDS, ModelKey
from codealign.inference.sources import default_name

log = get_logger(__name__)


class Models:
    """Loads and unloads models at workers.

    Args:
        fleet: Knows what is wanted and what each worker has.
        links: The workers.
        exchange: Its requests end when their model is unloaded.
        in_flight: Returns how many samples of a model a worker owes.
    """

    def __init__(self, fleet: Fleet, links: Links, exchange: Exchange, in_flight: Callable[[str, str], int]) -> None:
        self._fleet = fleet
        self._links = links
        self._exchange = exchange
        self._in_flight = in_flight
        self._loads: dict[tuple[str, str, str], asyncio.Task[str]] = {}

    def describe(self) -> list[pb.Model]:
        """Describe all wanted models."""
        return [self._described(entry.name) for entry in self._fleet.wanted.wanted]

    def get(self, name: str) -> pb.Model:
        """Describe a model; an empty name means the only one.

        Raises:
            CodeAlignError: The error of `Fleet.key_of`.
        """
        return self._described(self._fleet.key_of(name, "name", time.monotonic()).name)

    async def load(self, source: str, name: str, expected_revision: str) -> pb.Model:
        """Load a model at one worker and record that all are to have it.

        If the caller goes away, this continues; a later call joins it.

        Raises:
            FailedPrecondition: The name is in use for another source or revision, or that is being loaded.
            Unavailable: No worker responds.
            CodeAlignError: No worker can have the model: the first one's error.
        """
        name = name or next((each.name for each in self._fleet.wanted.wanted if each.source == source), "")
        asked = source, name, expected_revision
        task = self._loads.get(asked)
        if task is None:
            for other, each, _ in self._loads:
                # Which name a model without one gets is the worker's affair.
                if name and each == name and other.rstrip("/") != source.rstrip("/"):
                    raise FailedPrecondition(
                        f"model name {name} is in use by {other}, which is being loaded: unload that model, or choose "
                        f"another name for {source}"
                    )
            before = self._loading(name or default_name(source))
            task = asyncio.ensure_future(self._load_after(before, source, name, expected_revision))
            self._loads[asked] = task
            task.add_done_callback(functools.partial(self._loaded, asked))
        return self._described(await asyncio.shield(task))

    async def unload(self, name: str) -> None:
        """Record that a model is not to be served, and return when all workers that respond have unloaded it.

        A model that is being loaded is unloaded afterwards.

        Raises:
            NotFound: The model is not served.
        """
        if loads := self._loading(name):
            await asyncio.wait(loads)
        entry = self._fleet.wanted.get(name)
        if entry is None or entry.removed:
            raise NotFound(f"model {name} is not loaded; {self._fleet.others()}")
        self._fleet.wanted.remove(name, int(time.time() * 1000))
        log.info("model_removed", model=name)
        self._exchange.drop_model(name, Unavailable(f"model {name} was unloaded: load it, or request another"))
        await asyncio.gather(*(self._unload(link, name) for link in self._links.all))

    async def close(self) -> None:
        """Give up loads in progress; they go on at the workers."""
        tasks = list(self._loads.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _described(self, name: str) -> pb.Model:
        model = self._fleet.model(name, time.monotonic())
        for replica in model.replicas:
            replica.in_flight = self._in_flight(replica.worker, name)
        return model

    def _loaded(self, asked: tuple[str, str, str], task: asyncio.Task[str]) -> None:
        del self._loads[asked]
        if not task.cancelled():
            task.exception()  # Mark it as retrieved: the callers may be gone, and it was logged.

    def _loading(self, name: str) -> list[asyncio.Task[str]]:
        """Return the loads in progress that are, or may be, of a model."""
        loads = self._loads.items()
        return [task for (source, each, _), task in loads if (each or default_name(source)) == name]

    async def _load_after(self, before: list[asyncio.Task[str]], source: str, name: str, expected_revision: str) -> str:
        """Load a model after other loads of it: two at once could end with different revisions at two workers."""
        if before:
            await asyncio.wait(before)
        return await self._load(source, name, expected_revision)

    async def _load(self, source: str, name: str, expected_revision: str) -> str:
        """Load a model at the first worker that can have it, and return its name."""
        entry = self._fleet.wanted.get(name)
        having = [link for link in self._candidates() if name in self._fleet.workers[link.address].models]
        demanded = expected_revision
        if entry is not None and not entry.removed:
            # Other weights that a worker has under this name must not take the place of those that are served.
            served = [link for link in having if self._revision(link, name) == entry.revision]
            if not served:  # Other workers may be about to return with them.
                require_same(entry, source, "" if having else expected_revision)
            demanded = demanded or self._fleet.demanded(entry)
            having = served or [link for link in having if demanded in ("", self._revision(link, name))]
        first: CodeAlignError | None = None
        # A worker that has a model of this name knows whether it is the same, whatever the spelling of its source.
        for link in having or self._candidates():
            if self._links.get(link.address) is not link:
                continue  # Its address is gone since another worker was asked, which may take minutes.
            worker = self._fleet.workers[link.address]
            action = Load(name, source, demanded)
            there = set(worker.models)
            worker.loading.add(name)
            try:
                request = pb.LoadModelRequest(source=source, name=name, expected_revision=demanded)
                model = (await link.answer(link.stub.LoadModel(request))).model
            except Unavailable as error:
                log.warning("worker_unavailable", worker=link.address, model=name or source, reason=error.message)
                first = first or error
                continue
            except grpc.aio.AioRpcError as error:
                log.warning("worker_refused", worker=link.address, model=name or source, reason=describe(error))
                first = first or passed_on(error, link.address)
                if name:
                    passes = error.code() in STOPS
                    worker.refused(action, describe(error), time.monotonic(), passes=passes)
                continue
            finally:
                worker.loading.discard(name)
            try:
                self._require_free(model, source)
            except FailedPrecondition:
                await link.ask()
                if model.name not in there:
                    await self._unload(link, model.name)
                raise
            self._record(model, source, expected_revision)
            await link.ask()
            for other in self._links.all:
                other.ask_soon()  # so that they are told at once
            return model.name
        raise first or Unavailable(
            f"no worker responds: {self._fleet.why(ModelKey(name, ''), time.monotonic())}", retry_after=RETRY_SECONDS
        )

    def _require_free(self, model: pb.Model, source: str) -> None:
        """Refuse a model whose name another one has: a worker chose it, or another gateway gave it away meanwhile."""
        entry = self._fleet.wanted.get(model.name)
        if entry is not None and not entry.removed and entry.revision not in ("", model.revision):
            require_same(entry, source, "")

    def _record(self, model: pb.Model, source: str, expected_revision: str) -> None:
        entry = self._fleet.wanted.get(model.name)
        if entry is not None and not entry.removed and entry.revision == model.revision:
            if entry.pinned or not expected_revision:
                return  # It was wanted before, perhaps from another spelling of the source.
            source = entry.source
        self._fleet.wanted.record(
            model.name,
            source,
            model.revision,
            pinned=bool(expected_revision),
            now_ms=int(time.time() * 1000),
        )
        log.info("model_wanted", model=model.name, source=source, revision=model.revision)

    def _candidates(self) -> list[Link]:
        """Return the workers that respond, those with the fewest models first."""
        now = time.monotonic()
        workers = [worker for worker in self._fleet.workers.values() if not worker.problem(now)]
        workers.sort(key=lambda worker: len(worker.models))
        links = (self._links.get(worker.address) for worker in workers)
        return [link for link in links if link is not None]

    def _revision(self, link: Link, name: str) -> str:
        return self._fleet.workers[link.address].models[name].revision

    async def _unload(self, link: Link, name: str) -> None:
        worker = self._fleet.workers.get(link.address)
        if worker is None or worker.problem(time.monotonic()):
            return  # It unloads the model when it responds again.
        try:
            try:
                if name in worker.models or name in worker.loading:
                    await link.answer(link.stub.UnloadModel(pb.UnloadModelRequest(name=name)))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    log.warning("worker_did_not_unload", worker=link.address, model=name, reason=describe(error))
            await link.answer(link.ask())
        except Unavailable as error:  # It unloads the model when it responds again.
            log.warning("worker_did_not_unload", worker=link.address, model=name, reason=error.message)
