"""What the gateway makes of workers' answers and errors: the exchange over links that the test plays."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from structlog.testing import capture_logs

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import Unavailable
from codealign.inference.gateway.answers import Relayed
from codealign.inference.gateway.dispatch import Dispatcher
from codealign.inference.gateway.exchange import Exchange
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.members import Worker

MODEL = pb.Model(name="m", revision="a", source="hub/m", slots=8)
Play = Callable[[pb.GenerateRequest], AsyncIterator[pb.GenerateResponse]]


def answer(asked: pb.GenerateRequest, sample: pb.Sample) -> pb.GenerateResponse:
    completion = pb.Completion(
        attempt=sample.attempt, seed=sample.seed, text="text", finish_reason=pb.FINISH_REASON_END_TOKEN
    )
    return pb.GenerateResponse(completion=completion, model=asked.model, revision=asked.expected_revision)


async def well(asked: pb.GenerateRequest) -> AsyncIterator[pb.GenerateResponse]:
    for sample in asked.samples:
        yield answer(asked, sample)
    await asyncio.sleep(60)  # The end of the stream has not arrived when the caller has all answers.


def status(code: grpc.StatusCode, *trailers: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    metadata: Any = grpc.aio.Metadata(*trailers)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details="no")


def fails(error: grpc.aio.AioRpcError, times: int = 1_000_000) -> Play:
    """Fail so many times, then answer well."""
    left = [error] * times

    async def play(asked: pb.GenerateRequest) -> AsyncIterator[pb.GenerateResponse]:
        if left:
            raise left.pop()
        async for response in well(asked):
            yield response

    return play


class Link:
    """The connection to a worker that has the model and answers as the test says."""

    def __init__(self, address: str, scene: Scene) -> None:
        self.address = address
        self.play: Play = well
        self.stops = False
        self.asked: list[pb.GenerateRequest] = []
        self._scene = scene

    @contextlib.contextmanager
    def generate(self, request: pb.GenerateRequest) -> Iterator[AsyncIterator[pb.GenerateResponse]]:
        self.asked.append(request)
        yield self.play(request)

    async def ask(self) -> None:
        await asyncio.sleep(0)
        if self.stops:
            self._scene.fleet.workers[self.address].failed("it stops", time.monotonic())
            self._scene.exchange.reported(self.address)
        else:
            self._scene.report(self)


class Scene:
    """An exchange and its links."""

    def __init__(self, *addresses: str) -> None:
        self.fleet = Fleet()
        self.core = Dispatcher(100, 3, 30.0, 100.0)
        self.exchange = Exchange(self.core, self.fleet, lambda: None)
        self.links = {address: Link(address, self) for address in addresses}
        for address, link in self.links.items():
            self.fleet.workers[address] = Worker(address)
            self.exchange.connect(link)  # type: ignore[arg-type]
        for link in self.links.values():
            self.report(link)

    def report(self, link: Link) -> None:
        self.fleet.report(link.address, pb.SyncModelsResponse(models=[MODEL]), time.monotonic(), 1)
        self.exchange.reported(link.address)

    async def generated(self, count: int = 1) -> set[int]:
        samples = [pb.Sample(attempt=number, seed=number) for number in range(count)]
        request = pb.GenerateRequest(model="m", prompt="p", samples=samples)
        async with asyncio.timeout(60):
            return {each.completion.attempt async for each in self.exchange.generate(request, "caller")}

    def problem(self, address: str) -> str:
        return self.fleet.workers[address].problem(time.monotonic())


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT])
@pytest.mark.parametrize("trailer", [b"\xff\xff\xff", status_pb2.Status(code=5, message="x").SerializeToString()])
async def test_samples_are_sent_again_after_an_error_whose_details_cannot_be_read(
    code: grpc.StatusCode, trailer: bytes
) -> None:
    scene = Scene("w1", "w2")
    play = fails(status(code, ("grpc-status-details-bin", trailer)), times=1)
    for link in scene.links.values():
        link.play = play
    with capture_logs() as logged:
        assert await scene.generated(2) == {0, 1}
    assert {"call_to_worker_failed", "worker_fault"} <= {event["event"] for event in logged}
    assert [len(link.asked) for link in scene.links.values()] == [1, 1]
    assert scene.core.in_flight == scene.core.waiting == 0
    await scene.exchange.close()


async def test_a_delay_that_is_in_the_past_is_no_reason_to_ask_again_at_once() -> None:
    scene = Scene("w1")
    (link,) = scene.links.values()
    said = status_pb2.Status(code=8, message="no")
    said.details.add().Pack(error_details_pb2.RetryInfo(retry_delay={"seconds": -5}))
    link.play = fails(status(grpc.StatusCode.RESOURCE_EXHAUSTED, ("grpc-status-details-bin", said.SerializeToString())))
    call = asyncio.ensure_future(scene.generated())
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(link.asked) == 1
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await scene.exchange.close()


async def test_a_request_that_is_too_large_for_a_worker_is_refused_instead_of_sent_forever() -> None:
    scene = Scene("w1")
    (link,) = scene.links.values()
    nothing = grpc.aio.Metadata()
    said = "SERVER: Received message larger than max (67108900 vs. 67108864)"
    link.play = fails(grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, nothing, nothing, details=said))
    with pytest.raises(Relayed, match="larger than max"):
        await scene.generated()
    assert len(link.asked) == 1
    link.play = well
    assert await scene.generated() == {0}, "the worker is not held back"
    await scene.exchange.close()


async def test_good_answers_between_faults_keep_a_worker_in_use() -> None:
    scene = Scene("w1")
    (link,) = scene.links.values()
    for _ in range(4):
        link.play = fails(status(grpc.StatusCode.INTERNAL), times=1)
        assert await scene.generated(2) == {0, 1}
        assert scene.problem("w1") == ""
    await scene.exchange.close()


async def test_a_worker_that_hands_samples_back_but_does_not_stop_gets_them_a_few_times_only() -> None:
    scene = Scene("w1")
    (link,) = scene.links.values()
    link.play = fails(status(grpc.StatusCode.ABORTED))
    with pytest.raises(Unavailable, match=r"in 3 attempts: 1\. w1: no \(but it does not stop\)"):
        await scene.generated()
    assert len(link.asked) == 3
    await scene.exchange.close()


async def test_samples_that_a_stopping_worker_hands_back_wait_for_another_one() -> None:
    scene = Scene("w1")
    (link,) = scene.links.values()
    link.play = fails(status(grpc.StatusCode.ABORTED))
    link.stops = True
    call = asyncio.ensure_future(scene.generated())
    async with asyncio.timeout(60):
        while not scene.core.waiting:  # noqa: ASYNC110 (other tasks change it)
            await asyncio.sleep(0)
    assert scene.core.resent == {"returned": 1}
    link.play, link.stops = well, False
    await link.ask()
    assert await call == {0}
    await scene.exchange.close()
