"""Generates through workers: carries out what the dispatcher decides."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable

import grpc

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import CodeAlignError, FailedPrecondition, ResourceExhausted, describe, retry_delay
from codealign.common.logs import get_logger
from codealign.inference import metrics
from codealign.inference.engines.base import Load
from codealign.inference.gateway.answers import UNLESS_MODEL_GONE, Relayed, is_at_fault, objection
from codealign.inference.gateway.dispatch import Dispatcher
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.links import Link
from codealign.inference.gateway.work import Call, Ending, Fault, Job, ModelKey, Refused, Returned

_TICK_SECONDS = 0.25
_SHORTEST_HOLD_SECONDS, _LONGEST_HOLD_SECONDS = 0.1, 5.0
"""A worker that is full, for example with another gateway's samples, is tried again after a time between these,
whatever it asks for."""

log = get_logger(__name__)


@dataclasses.dataclass(eq=False, slots=True)
class _Request:
    """A caller's request, and where its answers go."""

    request: pb.GenerateRequest
    key: ModelKey
    seeds: dict[int, int]
    answers: asyncio.Queue[pb.GenerateResponse | CodeAlignError]
    context: contextvars.Context
    """Context variables of the caller. Another request's end may start its calls, whose log events and traces must not
    have the other's ids."""


class Exchange:
    """Sends samples to workers and their answers to callers.

    Args:
        dispatcher: Decides which worker gets which sample.
        fleet: Knows what each worker serves.
        changed: Called when the number of samples has changed.
    """

    def __init__(self, dispatcher: Dispatcher, fleet: Fleet, changed: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._changed = changed
        self._links: dict[str, Link] = {}
        self._requests: dict[Job, _Request] = {}
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        self._suspects: Counter[str] = Counter()
        self._checks: set[asyncio.Task[None]] = set()
        self._tokens = Load()
        self._changes = 0
        self._is_closing = False

    # Workers

    def connect(self, link: Link) -> None:
        """Use a worker from now on, as soon as it has reported."""
        self._links[link.address] = link

    def disconnect(self, address: str) -> None:
        """Give a worker no more samples. It may answer those that it has."""
        self._dispatcher.close_lanes(address)
        self._pump()

    def forget(self, address: str) -> None:
        """Forget a worker; what it still owes is sent to others."""
        self.lost(address, "its address is gone")
        self._links.pop(address, None)

    def reported(self, address: str) -> None:
        """Open and close a worker's lanes according to what it has loaded; all workers' if what is wanted changed."""
        changes = self._fleet.wanted.changes
        for each in [address] if changes == self._changes else list(self._links):
            self._update(each)
        self._changes = changes
        self._pump()

    def lost(self, address: str, reason: str) -> None:
        """Send what a worker owes to others."""
        over = self._dispatcher.lose(address, reason, time.monotonic())
        if over:
            log.warning("worker_lost", worker=address, calls=len(over), reason=reason)
        self._cancel(over)
        self._pump()

    def drop_model(self, name: str, error: CodeAlignError) -> None:
        """End all requests of a model with an error."""
        self._cancel(self._dispatcher.drop_model(name, error))
        self._pump()

    # Requests

    async def generate(self, request: pb.GenerateRequest, caller: str) -> AsyncGenerator[pb.GenerateResponse]:
        """Yield one response for each sample, in the order in which they arrive from the workers.

        Args:
            request: A valid request.
            caller: Identity of the caller; callers take turns.

        Raises:
            FailedPrecondition: Another revision is served.
            ResourceExhausted: Too many samples are waiting.
            Unavailable: No worker could answer; the message names them and says why.
            CodeAlignError: The error of `Fleet.key_of`, or a worker's answer to this request.
        """
        now = time.monotonic()
        key = self._fleet.key_of(request.model, "model", now)
        if request.expected_revision and request.expected_revision != key.revision:
            raise FailedPrecondition(
                f"model {key.name} is revision {key.revision}, not {request.expected_revision}: load that revision, or "
                "request the loaded one"
            )
        request.model, request.expected_revision = key  # what each worker is asked for
        answers: asyncio.Queue[pb.GenerateResponse | CodeAlignError] = asyncio.Queue()
        job = Job(key, caller, _group(request), answers.put_nowait)
        seeds = {sample.attempt: sample.seed for sample in request.samples}
        self._requests[job] = _Request(request, key, seeds, answers, contextvars.copy_context())
        try:
            try:
                dropped = self._dispatcher.submit(job, seeds, now)
            except ResourceExhausted:
                metrics.GATEWAY_REFUSED.inc()
                raise
            metrics.GATEWAY_REFUSED.inc(len(dropped))
            self._pump()
            for _ in range(len(seeds)):
                answer = await answers.get()
                if isinstance(answer, CodeAlignError):
                    raise answer
                yield answer
        finally:
            self._cancel(self._dispatcher.withdraw(job))
            del self._requests[job]
            self._pump()

    def load(self) -> Load:
        """Return the load of all workers, as far as this gateway causes it, and the tokens that it passed on."""
        running = min(self._dispatcher.in_flight, self._dispatcher.slots)
        return dataclasses.replace(
            self._tokens,
            running=running,
            waiting=self._dispatcher.waiting + self._dispatcher.in_flight - running,
            slots=self._dispatcher.slots,
        )

    async def run(self) -> None:
        """Look after silent workers and stuck samples, forever."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                self._tick()
            except Exception:
                # Without this loop, samples could wait forever.
                log.exception("tick_failed")

    async def close(self) -> None:
        """Stop all calls."""
        self._is_closing = True
        tasks = [*self._tasks.values(), *self._checks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Inside

    def _update(self, address: str) -> None:
        if self._suspects[address]:
            return  # The last report may be from before its fault.
        served = self._fleet.serves(address, time.monotonic())
        for key in self._dispatcher.lanes_of(address) - served.keys():
            self._dispatcher.close_lane(address, key)
        for key, model in served.items():
            self._dispatcher.open_lane(address, key, model.slots, model.base)

    def _tick(self) -> None:
        now = time.monotonic()
        for address in self._links:
            self._update(address)  # A worker that was set aside comes back without a report.
        silent, over = self._dispatcher.tick(now, lambda key: self._fleet.why(key, now))
        self._cancel(over)
        for address, reason in silent.items():
            if worker := self._fleet.workers.get(address):
                worker.misbehaved(reason, now, certainly=True)
            self.lost(address, reason)
        self._pump()

    def _pump(self) -> None:
        """Make every call that can be made."""
        for call in self._dispatcher.start(time.monotonic()):
            asked = self._requests[call.job]
            task = asyncio.get_running_loop().create_task(self._call(call, asked), context=asked.context)
            self._tasks[call] = task
            task.add_done_callback(functools.partial(self._done, call))
        self._changed()

    def _done(self, call: Call, task: asyncio.Task[None]) -> None:
        self._tasks.pop(call, None)
        if task.cancelled() and call.owed and not self._is_closing:
            # Not by this class, whose cancelled calls owe nothing. The samples must not be forgotten.
            self._cancel(self._dispatcher.ended(call, Fault("its call was cancelled"), time.monotonic()))
            self._check(call.worker)
            self._pump()

    def _cancel(self, calls: Iterable[Call]) -> None:
        for call in calls:
            if task := self._tasks.get(call):
                task.cancel()

    async def _call(self, call: Call, asked: _Request) -> None:
        link = self._links.get(call.worker)
        ending: Ending
        if link is None:
            ending = Fault("its address is gone")
        else:
            try:
                try:
                    ending = await self._relay(call, asked, link)
                except grpc.aio.AioRpcError as error:
                    ending = await self._ending(error, call, asked.key, link)
            except Exception as error:  # such as an error with details that contradict it
                log.exception("call_to_worker_failed", worker=call.worker)
                ending = Fault(f"{type(error).__name__}: {error}")
        owes = bool(call.owed)
        over = self._dispatcher.ended(call, ending, time.monotonic())
        if isinstance(ending, Fault) or (ending is None and owes):
            log.warning("worker_fault", worker=call.worker, reason=getattr(ending, "reason", "stream ended early"))
            self._check(call.worker)
        self._cancel(over)
        self._pump()

    async def _relay(self, call: Call, asked: _Request, link: Link) -> Ending:
        """Pass a worker's answers on until its stream ends."""
        request = _part(asked.request, call.owed)
        worker = self._fleet.workers.get(call.worker)
        with link.generate(request) as responses:
            async for response in responses:
                if why := objection(response, asked.key, asked.seeds, call.owed):
                    if worker is not None:
                        worker.misbehaved(f"its answer is invalid: {why}", time.monotonic(), certainly=True)
                    return Fault(f"its answer is invalid: {why}")
                if self._dispatcher.answered(call, response.completion.attempt, time.monotonic()):
                    if worker is not None and not call.owed:
                        worker.behaved()  # now: a caller that has all its answers ends this call before its stream does
                    asked.answers.put_nowait(response)
                    self._count(response.completion)
                    self._pump()
        return None

    async def _ending(self, error: grpc.aio.AioRpcError, call: Call, key: ModelKey, link: Link) -> Ending:
        """Return what a worker's error means for the samples that it owes."""
        code = error.code()
        if is_at_fault(error):
            return Refused(Relayed(error))
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Returned(min(max(_SHORTEST_HOLD_SECONDS, retry_delay(error) or 1.0), _LONGEST_HOLD_SECONDS))
        if code is grpc.StatusCode.ABORTED:  # it stops, and hands the samples back
            await link.ask()
            if key in self._fleet.serves(call.worker, time.monotonic()):
                return Fault(f"{describe(error)} (but it does not stop)")  # or it would get them for ever
            return Returned()
        if code in UNLESS_MODEL_GONE:
            await link.ask()
            if key in self._fleet.serves(call.worker, time.monotonic()):
                return Refused(Relayed(error))
            return Returned()
        reason = describe(error)
        # A server that stops or is lost ends calls with these two statuses, which say nothing about how it works.
        stops = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        if not stops and (worker := self._fleet.workers.get(call.worker)):
            worker.misbehaved(f"{code.name}: {reason}", time.monotonic(), certainly=False)
        return Fault(reason)

    def _check(self, address: str) -> None:
        """Keep a worker's lanes closed until it has responded again."""
        link = self._links.get(address)
        if link is None:
            return
        self._suspects[address] += 1

        async def ask() -> None:
            try:
                await link.ask()
            finally:
                self._suspects[address] -= 1
            self.reported(address)

        task = asyncio.create_task(ask())
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    def _count(self, completion: pb.Completion) -> None:
        self._tokens = Load(
            prompt_tokens=self._tokens.prompt_tokens + completion.prompt_tokens,
            cached_prompt_tokens=self._tokens.cached_prompt_tokens + completion.cached_prompt_tokens,
            generated_tokens=self._tokens.generated_tokens + completion.generated_tokens,
        )


def _group(request: pb.GenerateRequest) -> str:
    """Return the key of the samples that belong on one worker: those of a prefix, or else those of a prompt."""
    if request.prefix_key:
        return request.prefix_key
    text = request.prompt.encode("utf-8", "surrogatepass") or request.chat.SerializeToString(deterministic=True)
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _part(request: pb.GenerateRequest, attempts: Collection[int]) -> pb.GenerateRequest:
    """Return the request for some of its samples."""
    if len(attempts) == len(request.samples):
        return request
    part = pb.GenerateRequest()
    part.CopyFrom(request)
    del part.samples[:]
    part.samples.extend(sample for sample in request.samples if sample.attempt in attempts)
    return part
