"""The pod's transport: real streams over loopback, with a supervisor that executes nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from codealign.api.runner.v1 import runner_pb2
from codealign.api.runner.v1.runner_pb2_grpc import RunnerServiceStub, add_RunnerServiceServicer_to_server
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.interceptors import ServerInterceptor
from codealign.runner.configuration import Configuration
from codealign.runner.pod.servicer import RunnerServicer
from codealign.runner.supervisor import Supervisor

SLOTS = 2


class Box(Supervisor):
    """A supervisor with slots that ends a job when the test says so."""

    def __init__(self, state: pb.RunnerState.ValueType = pb.RUNNER_STATE_READY) -> None:
        super().__init__(Configuration("box", SLOTS, "grpc"))
        self.description = pb.Runner(name="box", state=state, slots=SLOTS)
        self.jobs: dict[str, tuple[Callable[[pb.Result], None], threading.Event]] = {}

    def submit(self, request: pb.ExecuteRequest, finished: Callable[[pb.Result], None]) -> threading.Event:
        cancelled = threading.Event()
        self.jobs[request.request_id] = finished, cancelled
        return cancelled

    async def end(self, name: str) -> None:
        """End a job as a slot does: from another thread."""
        finished, _ = self.jobs.pop(name)
        await asyncio.to_thread(finished, pb.Result(request_id=name, verdict=pb.VERDICT_PASSED))

    async def holds(self, *names: str) -> None:
        await until(lambda: set(self.jobs) == set(names))

    async def cancelled(self, name: str) -> None:
        await until(self.jobs[name][1].is_set)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (threads change it)
            await asyncio.sleep(0.01)


class Gateway:
    """A gateway's end of a stream."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._number = 0

    async def job(self, name: str) -> int:
        self._number += 1
        job = runner_pb2.Job(id=self._number, request=pb.ExecuteRequest(request_id=name))
        await self.call.write(runner_pb2.AttachRequest(job=job))
        return self._number

    async def drain(self) -> None:
        await self.call.write(runner_pb2.AttachRequest(drain=runner_pb2.Drain()))

    async def hello(self) -> pb.Runner:
        frame = await self.call.read()
        assert frame.HasField("hello"), frame
        runner: pb.Runner = frame.hello.runner
        return runner

    async def outcome(self) -> str:
        frame = await self.call.read()
        assert frame.HasField("outcome"), frame
        return str(frame.outcome.result.request_id)

    async def ended(self) -> bool:
        return await self.call.read() is grpc.aio.EOF

    async def failure(self) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self._to_the_end()
        return caught.value.code()

    async def _to_the_end(self) -> None:
        while await self.call.read() is not grpc.aio.EOF:
            pass


class Pod:
    """A served supervisor."""

    def __init__(self, box: Box, attach: Callable[[], Awaitable[Gateway]]) -> None:
        self.box, self.attach = box, attach
        self.draining = asyncio.Event()


@asynccontextmanager
async def serving(box: Box, gateways: int = 4) -> AsyncIterator[Pod]:
    async with AsyncExitStack() as stack:
        server = grpc.aio.server(interceptors=[ServerInterceptor(3600.0)])
        port = server.add_insecure_port("127.0.0.1:0")

        async def attach() -> Gateway:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
            return Gateway(RunnerServiceStub(channel).Attach())

        pod = Pod(box, attach)
        add_RunnerServiceServicer_to_server(RunnerServicer(box, pod.draining, gateways), server)
        await server.start()
        yield pod
        await stack.aclose()
        await server.stop(None)


async def test_outcomes_come_in_the_order_in_which_jobs_end() -> None:
    async with serving(Box()) as pod:
        gateway = await pod.attach()
        assert (await gateway.hello()).slots == SLOTS
        await gateway.job("a")
        await gateway.job("b")
        await pod.box.holds("a", "b")
        await pod.box.end("b")
        assert await gateway.outcome() == "b"
        await gateway.job("c")
        await pod.box.holds("a", "c")
        await pod.box.end("a")
        await pod.box.end("c")
        assert [await gateway.outcome(), await gateway.outcome()] == ["a", "c"]


async def test_a_cancelled_job_still_has_its_outcome() -> None:
    async with serving(Box()) as pod:
        gateway = await pod.attach()
        await gateway.hello()
        number = await gateway.job("a")
        await pod.box.holds("a")
        await gateway.call.write(runner_pb2.AttachRequest(cancel=runner_pb2.Cancel(id=number)))
        await pod.box.cancelled("a")
        await pod.box.end("a")
        assert await gateway.outcome() == "a"


async def test_a_gateway_that_drains_gets_its_outcomes_and_then_the_end() -> None:
    async with serving(Box()) as pod:
        gateway = await pod.attach()
        await gateway.hello()
        await gateway.job("a")
        await gateway.drain()
        await pod.box.holds("a")
        await pod.box.end("a")
        assert await gateway.outcome() == "a"
        assert await gateway.ended()


async def test_gateways_share_the_slots_and_a_lost_one_takes_only_its_own_jobs_with_it() -> None:
    async with serving(Box()) as pod:
        one, other = await pod.attach(), await pod.attach()
        await one.hello()
        await other.hello()
        await one.job("one's")
        await other.job("other's")
        await pod.box.holds("one's", "other's")
        one.call.cancel()
        await pod.box.cancelled("one's")
        assert not pod.box.jobs["other's"][1].is_set()
        await pod.box.end("one's")
        await pod.box.end("other's")
        assert await other.outcome() == "other's"


async def test_a_gateway_that_hangs_up_without_a_drain_is_lost() -> None:
    async with serving(Box()) as pod:
        gateway = await pod.attach()
        await gateway.hello()
        await gateway.job("a")
        await pod.box.holds("a")
        await gateway.call.done_writing()
        await pod.box.cancelled("a")
        assert await gateway.ended()


async def test_more_jobs_than_slots_end_the_stream() -> None:
    async with serving(Box()) as pod:
        gateway = await pod.attach()
        await gateway.hello()
        for name in ("a", "b", "c"):
            await gateway.job(name)
        assert await gateway.failure() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await pod.box.cancelled("a")


async def test_more_gateways_than_allowed_are_refused_until_one_leaves() -> None:
    async with serving(Box(), gateways=1) as pod:
        first = await pod.attach()
        await first.hello()
        assert await (await pod.attach()).failure() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await first.drain()
        assert await first.ended()
        assert (await (await pod.attach()).hello()).name == "box"


async def test_a_runner_whose_walls_do_not_hold_says_so_and_takes_nothing() -> None:
    async with serving(Box(pb.RUNNER_STATE_REFUSED)) as pod:
        gateway = await pod.attach()
        assert (await gateway.hello()).state == pb.RUNNER_STATE_REFUSED
        await gateway.job("a")
        assert await gateway.failure() is grpc.StatusCode.INVALID_ARGUMENT
        assert pod.box.jobs == {}


async def test_a_runner_that_stops_says_so_finishes_and_takes_no_new_gateway() -> None:
    async with serving(Box()) as pod:
        busy, idle = await pod.attach(), await pod.attach()
        await busy.hello()
        await idle.hello()
        await busy.job("a")
        await pod.box.holds("a")
        pod.draining.set()
        assert (await busy.hello()).state == pb.RUNNER_STATE_DRAINING
        assert (await idle.hello()).state == pb.RUNNER_STATE_DRAINING
        assert await idle.ended()
        # It was already on its way.
        await busy.job("b")
        await pod.box.holds("a", "b")
        await pod.box.end("a")
        await pod.box.end("b")
        assert [await busy.outcome(), await busy.outcome()] == ["a", "b"]
        assert await busy.ended()
        assert await (await pod.attach()).failure() is grpc.StatusCode.UNAVAILABLE
