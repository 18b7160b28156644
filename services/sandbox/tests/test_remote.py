"""Runners started elsewhere: found by name, attached to, drained, lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from codealign.api.runner.v1 import runner_pb2
from codealign.api.runner.v1 import runner_pb2_grpc as rpc
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.clients import ClientTls
from codealign.common.discovery import Discovery, Target
from codealign.sandbox import validate
from codealign.sandbox.backends import RemotePlaces
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.pool import Pool
from codealign.sandbox.runners.attached import AttachedRunner, RunnerDrained, RunnerLost
from codealign.sandbox.runners.remote import RemoteBackend

from .conftest import request

REQUEST = validate.checked(request("x = 1"))


class Runner(rpc.RunnerServiceServicer):
    """Sends a hello, and then the `frames` of the test; None ends the stream."""

    def __init__(self) -> None:
        self.hello = pb.Runner(
            name="pod",
            state=pb.RUNNER_STATE_READY,
            isolation=pb.ISOLATION_GVISOR,
            slots=1,
            isolation_checks=[pb.IsolationCheck(name="kernel", passed=True)],
        )
        self.frames: asyncio.Queue[runner_pb2.AttachResponse | None] = asyncio.Queue()
        self.received: asyncio.Queue[runner_pb2.AttachRequest] = asyncio.Queue()
        self.left = asyncio.Event()

    async def Attach(self, request_iterator: Any, context: Any) -> AsyncIterator[runner_pb2.AttachResponse]:
        taker = asyncio.create_task(self._take(request_iterator))
        try:
            yield runner_pb2.AttachResponse(hello=runner_pb2.Hello(runner=self.hello))
            while (frame := await self.frames.get()) is not None:
                yield frame
        finally:
            taker.cancel()
            self.left.set()

    async def _take(self, frames: AsyncIterator[runner_pb2.AttachRequest]) -> None:
        async for frame in frames:
            self.received.put_nowait(frame)

    def drains(self) -> None:
        runner = pb.Runner(name="pod", state=pb.RUNNER_STATE_DRAINING, slots=1)
        self.frames.put_nowait(runner_pb2.AttachResponse(hello=runner_pb2.Hello(runner=runner)))

    async def answers(self, verdict: pb.Verdict.ValueType = pb.VERDICT_COMPLETED) -> None:
        job = (await self.received.get()).job
        outcome = runner_pb2.Outcome(id=job.id, result=pb.Result(verdict=verdict))
        self.frames.put_nowait(runner_pb2.AttachResponse(outcome=outcome))


@asynccontextmanager
async def serving(runner: Runner) -> AsyncIterator[str]:
    server = grpc.aio.server()
    rpc.add_RunnerServiceServicer_to_server(runner, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (other tasks change it)
            await asyncio.sleep(0.01)


def backend(address: str) -> RemoteBackend:
    return RemoteBackend(address, ClientTls(), "", 10.0)


@asynccontextmanager
async def attached(runner: Runner) -> AsyncIterator[AttachedRunner]:
    async with serving(runner) as address:
        yield await backend(address).start()


async def test_a_job_goes_there_and_its_outcome_comes_back() -> None:
    runner = Runner()
    async with attached(runner) as there:
        assert there.description == runner.hello
        execution = asyncio.create_task(there.execute(REQUEST))
        await runner.answers()
        assert (await execution).verdict == pb.VERDICT_COMPLETED
        await there.close()
        await asyncio.wait_for(runner.left.wait(), 10)


async def test_a_cancelled_job_is_told_to_the_runner_and_the_stream_lives_on() -> None:
    runner = Runner()
    async with attached(runner) as there:
        execution = asyncio.create_task(there.execute(REQUEST))
        job = (await runner.received.get()).job
        execution.cancel()
        assert (await runner.received.get()).cancel.id == job.id
        runner.frames.put_nowait(runner_pb2.AttachResponse(outcome=runner_pb2.Outcome(id=job.id)))
        with pytest.raises(asyncio.CancelledError):
            await execution
        again = asyncio.create_task(there.execute(REQUEST))
        await runner.answers()
        await again
        await there.close()


async def test_a_stream_that_breaks_loses_its_jobs() -> None:
    runner = Runner()
    async with serving(runner) as address:
        there = await backend(address).start()
        execution = asyncio.create_task(there.execute(REQUEST))
        await runner.received.get()
    with pytest.raises(RunnerLost) as caught:
        await execution
    assert not isinstance(caught.value, RunnerDrained)
    assert not there.is_alive


async def test_a_runner_that_drains_gets_nothing_new_and_what_it_gives_back_is_no_fault() -> None:
    runner = Runner()
    async with attached(runner) as there:
        execution = asyncio.create_task(there.execute(REQUEST))
        await runner.received.get()
        runner.drains()
        await until(lambda: not there.is_alive)
        with pytest.raises(RunnerDrained):
            await there.execute(REQUEST)
        runner.frames.put_nowait(None)
        with pytest.raises(RunnerDrained):
            await execution


async def test_a_server_that_is_not_there_is_a_lost_runner_with_its_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RunnerLost, match=address):
            await backend(address).start()


@asynccontextmanager
async def discovering(target: Target) -> AsyncIterator[tuple[Discovery, Pool, Dispatcher]]:
    async def changed(reason: str) -> None:
        pass

    dispatcher = Dispatcher(10, 3)
    pool = Pool(dispatcher, changed, patient=True)
    yield Discovery([target], RemotePlaces(pool, backend), 0.05, 5.0), pool, dispatcher
    await pool.stop(0)


async def test_each_address_of_the_name_is_a_runner_and_one_that_vanishes_is_drained() -> None:
    one, two = Runner(), Runner()
    async with serving(one) as first, serving(two) as second, discovering(Target("unused", 1)) as (found, pool, _):
        found.update({first, second})
        await until(lambda: pool.slots == 2)
        found.update({second})
        assert pool.places == {first, second}, "one look-up may be mistaken"
        found.update({second})
        assert (await one.received.get()).HasField("drain")
        one.frames.put_nowait(None)
        await asyncio.wait_for(one.left.wait(), 10)
        assert pool.places == {second}
        found.update({first, second})
        assert pool.places == {first, second}


async def test_work_waits_for_a_runner_that_comes_later() -> None:
    runner = Runner()
    async with serving(runner) as address:
        host, _, port = address.rpartition(":")
        async with discovering(Target(host, int(port))) as (found, pool, dispatcher):
            pool.check()
            execution = asyncio.create_task(dispatcher.execute(REQUEST))
            await asyncio.sleep(0.05)
            assert dispatcher.queued == 1
            finder = asyncio.create_task(found.run())
            await runner.answers()
            assert (await execution).verdict == pb.VERDICT_COMPLETED
            finder.cancel()


async def test_a_name_without_addresses_has_no_runners_and_is_no_error() -> None:
    async with discovering(Target("no-such-host.invalid", 1)) as (found, pool, _):
        finder = asyncio.create_task(found.run())
        await asyncio.sleep(0.2)
        assert not finder.done()
        assert pool.places == set()
        finder.cancel()
