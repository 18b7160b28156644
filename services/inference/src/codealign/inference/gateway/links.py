"""Connections to workers: what they report, what they have to load, and what they are asked to generate."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.common.clients import traced
from codealign.common.errors import Unavailable, describe
from codealign.common.logs import get_logger
from codealign.inference.gateway.answers import STOPS, objection_to_report
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.members import Action, Load, Worker
from codealign.inference.gateway.work import RETRY_SECONDS

if TYPE_CHECKING:  # the async stubs exist only as types
    from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

_PROBE_TIMEOUT_SECONDS = 10.0
ResponseT = TypeVar("ResponseT")

log = get_logger(__name__)


class Changes(Protocol):
    """What a link tells its gateway."""

    def reported(self, address: str) -> None:
        """A worker has responded, or has failed to."""

    def lost(self, address: str, reason: str) -> None:
        """What a worker owes must be sent to others."""

    def disconnect(self, address: str) -> None:
        """A worker gets no more samples. It may answer those that it has."""

    def forget(self, address: str) -> None:
        """A worker is not used any more."""


class Link:
    """The connection to one worker. Closed with `close`.

    Args:
        address: The worker's address.
        channel: A channel to it.
        fleet: Knows what is wanted, and is told what the worker has.
        changes: Is told what has changed.
        probe_seconds: Seconds between two inquiries.
        lost_seconds: Seconds without a response after which the worker is lost.
        drain_seconds: The same for a worker that refuses connections while its calls go on, since it is stopping.
    """

    def __init__(
        self,
        address: str,
        channel: grpc.aio.Channel,
        fleet: Fleet,
        changes: Changes,
        probe_seconds: float,
        lost_seconds: float,
        drain_seconds: float,
    ) -> None:
        self.address = address
        self.stub: InferenceServiceAsyncStub = InferenceServiceStub(channel)
        self._channel = channel
        self._fleet = fleet
        self._changes = changes
        self._probe_seconds = probe_seconds
        self._lost_seconds = lost_seconds
        self._drain_seconds = max(lost_seconds, drain_seconds)
        self._responded = time.monotonic()
        self._refusals: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._probe: asyncio.Task[None] | None = None
        self._action: asyncio.Task[None] | None = None
        self._loop = asyncio.create_task(self._run())

    def ask_soon(self) -> None:
        """Inquire now instead of after the pause."""
        self._wake.set()

    async def ask(self) -> None:
        """Inquire and return when the answer is known. What began before this call does not count."""
        if self._probe is not None:
            await asyncio.wait((self._probe,))
        if self._probe is None:  # nobody else began one in the meantime
            self._probe = asyncio.create_task(self._ask())
            self._probe.add_done_callback(self._forget)
        await asyncio.wait((self._probe,))

    @contextlib.contextmanager
    def generate(self, request: pb.GenerateRequest) -> Iterator[AsyncIterable[pb.GenerateResponse]]:
        """Give the worker's responses, whose iterator raises AioRpcError. The call is cancelled at the end."""
        with traced(self.stub.Generate) as metadata:
            call = self.stub.Generate(request, metadata=metadata)
            try:
                yield call
            finally:
                call.cancel()

    async def answer(self, call: Awaitable[ResponseT]) -> ResponseT:
        """Await a call that may take long, as long as the worker responds to inquiries. Otherwise it is cancelled.

        Raises:
            Unavailable: The worker does not respond any more, or its address is gone.
            AioRpcError: The worker's error.
        """
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=self._probe_seconds)
                silent = time.monotonic() - self._responded
                if not task.done() and silent > self._lost_seconds:
                    raise Unavailable(
                        f"worker {self.address}: it has not responded for {silent:.0f} s", retry_after=RETRY_SECONDS
                    )
            if task.cancelled():  # `close` does that. The caller was not cancelled, and must get an answer.
                raise Unavailable(f"worker {self.address}: its address is gone", retry_after=RETRY_SECONDS)
            return task.result()
        finally:
            task.cancel()

    async def retire(self) -> None:
        """Inquire no more. Calls go on, and so does a load in progress at the worker."""
        tasks = [task for task in (self._loop, self._action, self._probe) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """End the connection."""
        await self.retire()
        await self._channel.close()

    def _forget(self, _: asyncio.Task[None]) -> None:
        self._probe = None

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self.ask()
            if self._action is None or self._action.done():
                action = self._fleet.plan(self.address, time.monotonic())
                if action is not None:
                    # Now, so that an UnloadModel before the task's first step knows of it.
                    self._fleet.workers[self.address].loading.add(action.name)
                    self._action = asyncio.create_task(self._act(action))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._probe_seconds):
                    await self._wake.wait()

    async def _ask(self) -> None:
        request = pb.SyncModelsRequest(wanted=self._fleet.wanted.entries)
        try:
            response = await self.stub.SyncModels(request, timeout=_PROBE_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._fail(error)
        except Exception:  # such as a message that cannot be read
            log.exception("worker_not_understood", worker=self.address)
            if worker := self._fleet.workers.get(self.address):
                worker.failed("its report cannot be read: see the gateway's log", time.monotonic())
        else:
            if self.address not in self._fleet.workers:  # Its address is gone; its calls may still inquire.
                return
            self._responded = time.monotonic()
            self._take_over(response, self._fleet.workers[self.address])
        self._changes.reported(self.address)

    def _take_over(self, response: pb.SyncModelsResponse, worker: Worker) -> None:
        before = worker.trouble
        if why := objection_to_report(response):
            worker.failed(f"its report is invalid: {why}", self._responded)
            if worker.trouble != before:
                log.warning("worker_unavailable", worker=self.address, reason=worker.trouble)
            return
        self._fleet.report(self.address, response, self._responded, int(time.time() * 1000))
        if before:
            log.info("worker_responds", worker=self.address, models=sorted(each.name for each in response.models))
        refusals = self._fleet.refusals(self.address, self._responded)
        for name, reason in refusals.items():
            if self._refusals.get(name) != reason:
                log.warning("worker_refused", worker=self.address, model=name, reason=reason)
        self._refusals = refusals

    def _fail(self, error: grpc.aio.AioRpcError) -> None:
        worker = self._fleet.workers.get(self.address)
        if worker is None:
            return
        reason = describe(error)
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            reason = f"it is no worker, or of an older release ({reason})"
        if not worker.trouble or not worker.was_asked:
            log.warning("worker_unavailable", worker=self.address, reason=reason)
        worker.failed(reason, time.monotonic())
        silent = time.monotonic() - self._responded
        # A server that stops takes no new calls, inquiries included, but finishes those that it has. If it were gone,
        # they would have broken.
        stops = error.code() is grpc.StatusCode.UNAVAILABLE
        if silent > (self._drain_seconds if stops else self._lost_seconds):
            self._changes.lost(self.address, f"it has not responded for {silent:.0f} s: {reason}")

    async def _act(self, action: Action) -> None:
        worker = self._fleet.workers[self.address]
        try:
            if isinstance(action, Load):
                log.info("worker_loads", worker=self.address, model=action.name, source=action.source)
                await self.stub.LoadModel(
                    pb.LoadModelRequest(name=action.name, source=action.source, expected_revision=action.revision)
                )
            else:
                log.info("worker_unloads", worker=self.address, model=action.name)
                await self.stub.UnloadModel(pb.UnloadModelRequest(name=action.name))
        except grpc.aio.AioRpcError as error:
            if isinstance(action, Load):
                passes = error.code() in STOPS
                worker.refused(action, describe(error), time.monotonic(), passes=passes)  # logged with the next report
            else:
                log.warning("worker_refused", worker=self.address, model=action.name, reason=describe(error))
        else:
            await self.ask()
            if isinstance(action, Load):
                if worker.trouble or action.name in worker.models:
                    worker.loaded(action.name)
                else:
                    reason = "it answered that it has loaded the model, but does not report it"
                    worker.refused(action, reason, time.monotonic(), passes=True)
            # What is still to be done waits for the next inquiry, as after an error, since it may fail again.
            if self._fleet.plan(self.address, time.monotonic()) != action:
                self.ask_soon()
        finally:
            worker.loading.discard(action.name)


class Links:
    """All links, as places for discovery.

    Args:
        fleet: Gets and loses the workers.
        open_link: Opens the link to an address.
        changes: Is told which workers are given up.
        in_flight: Returns how many samples a worker owes.
    """

    def __init__(
        self,
        fleet: Fleet,
        open_link: Callable[[str], Link],
        changes: Changes,
        in_flight: Callable[[str], int],
    ) -> None:
        self._fleet = fleet
        self._open = open_link
        self._changes = changes
        self._in_flight = in_flight
        self._links: dict[str, Link] = {}

    @property
    def places(self) -> set[str]:
        """Addresses of the workers in use."""
        return set(self._links)

    def get(self, address: str) -> Link | None:
        """Return the link to a worker."""
        return self._links.get(address)

    @property
    def all(self) -> list[Link]:
        """All links."""
        return list(self._links.values())

    def keep(self, address: str) -> None:
        """See `discovery.Places`."""
        self._fleet.workers[address] = Worker(address)
        self._links[address] = self._open(address)

    async def drop(self, address: str, drain_seconds: float) -> None:
        """See `discovery.Places`."""
        # At once, since the address may come back while the link ends.
        link = self._links.pop(address)
        self._fleet.workers.pop(address, None)
        self._changes.disconnect(address)
        await link.retire()
        deadline = time.monotonic() + drain_seconds
        while self._in_flight(address) and time.monotonic() < deadline:  # noqa: ASYNC110 (pure state)
            await asyncio.sleep(0.1)
        if address not in self._links:  # it has not come back meanwhile
            self._changes.forget(address)
        await link.close()

    async def close(self) -> None:
        """Close all links."""
        links, self._links = self.all, {}
        await asyncio.gather(*(link.close() for link in links))
