"""A runner whose stream brings something unexpected is lost, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError

from codealign.api.runner.v1 import runner_pb2
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.sandbox.runners import attached
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost, attach

from .conftest import name_of
from .scripted import Bench, Scripted, settled


class Link:
    """A stream whose other end is the test."""

    patience_seconds = 60.0

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[runner_pb2.AttachResponse | Exception] = asyncio.Queue()
        self.sent: list[runner_pb2.AttachRequest] = []
        self.refuses: Exception | None = None
        self.is_full = False
        self.processor_seconds: float | Exception | None = None
        self.closed = False

    async def send(self, frame: runner_pb2.AttachRequest) -> None:
        if self.refuses is not None:
            raise self.refuses
        if self.is_full:
            await asyncio.Event().wait()
        self.sent.append(frame)

    async def receive(self) -> runner_pb2.AttachResponse:
        frame = await self.incoming.get()
        if isinstance(frame, Exception):
            raise frame
        return frame

    @property
    def resident_bytes(self) -> int:
        return 0

    async def cpu_seconds(self) -> float | None:
        if isinstance(self.processor_seconds, Exception):
            raise self.processor_seconds
        return self.processor_seconds

    async def close(self) -> None:
        self.closed = True
        self.incoming.put_nowait(RunnerLost("closed"))

    def tells(self, fields: Callable[[runner_pb2.AttachResponse], None]) -> None:
        frame = runner_pb2.AttachResponse()
        fields(frame)
        self.incoming.put_nowait(frame)


READY = pb.Runner(name="r", state=pb.RUNNER_STATE_READY, slots=1, profiles=["default"])


async def attached_to(link: Link) -> AttachedRunner:
    link.tells(lambda frame: frame.hello.runner.CopyFrom(READY))
    return await attach(link, 5)


@pytest.mark.parametrize("error", [DecodeError("truncated"), ValueError("x"), KeyError("x"), RuntimeError("a bug")])
async def test_a_frame_that_is_none_ends_the_runner_and_its_job_runs_elsewhere(error: Exception) -> None:
    link, bench, other = Link(), Bench(), Scripted("other")
    runner = await attached_to(link)
    serving = asyncio.create_task(bench.dispatcher.serve(runner, "here"))
    try:
        call = await bench.call("x")
        assert [frame.WhichOneof("frame") for frame in link.sent] == ["job"]
        link.incoming.put_nowait(error)
        await asyncio.wait_for(serving, 5)
        assert link.closed
        assert not runner.is_alive
        await bench.add(other)
        await other.finish("x")
        assert name_of(await call) == "PASSED"
    finally:
        await bench.close()


async def test_a_job_that_cannot_be_sent_runs_elsewhere_though_the_runners_stream_has_not_ended() -> None:
    link, bench, other = Link(), Bench(attempts=3), Scripted("other")
    runner = await attached_to(link)
    link.refuses = RunnerLost("standard input is closed")
    serving = asyncio.create_task(bench.dispatcher.serve(runner, "here"))
    try:
        call = await bench.call("x")
        assert not runner.is_alive
        await bench.add(other)
        await other.finish("x")
        assert name_of(await call) == "PASSED"
        assert link.closed
        async with asyncio.timeout(5):
            await serving
    finally:
        await bench.close()


async def test_a_runner_that_a_job_cannot_be_sent_to_is_lost() -> None:
    link = Link()
    runner = await attached_to(link)
    link.refuses = ValueError("a message of 3 GiB")
    with pytest.raises(RunnerLost, match="ValueError: a message of 3 GiB"):
        await runner.execute(pb.ExecuteRequest())
    assert link.closed
    assert not runner.is_alive


async def test_a_runner_that_does_not_take_its_job_is_lost() -> None:
    link, bench, other = Link(), Bench(), Scripted("other")
    link.patience_seconds = 0.05
    runner = await attached_to(link)
    link.is_full = True
    serving = asyncio.create_task(bench.dispatcher.serve(runner, "here"))
    try:
        call = await bench.call("x")
        await asyncio.wait_for(serving, 5)
        assert link.closed
        await bench.add(other)
        await other.finish("x")
        assert name_of(await call) == "PASSED"
    finally:
        await bench.close()


async def test_a_runner_that_takes_no_cancellation_and_no_drain_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "_CANCEL_SECONDS", 0.05)
    link = Link()
    runner = await attached_to(link)
    job = asyncio.create_task(runner.execute(pb.ExecuteRequest()))
    await settled()
    link.is_full = True
    job.cancel()
    await asyncio.wait((job,), timeout=5)
    assert job.cancelled()
    assert link.closed
    link = Link()
    runner = await attached_to(link)
    link.is_full = True
    await asyncio.wait_for(runner.drain(0.05), 5)
    assert link.closed


@pytest.mark.parametrize(("verdict", "fault"), [(99, "invalid verdict 99"), (0, "invalid verdict 0")])
async def test_a_verdict_that_is_none_is_a_failed_attempt(verdict: int, fault: str) -> None:
    bench = Bench(attempts=2)
    one, two = Scripted("one"), Scripted("two")
    try:
        await bench.add(one)
        call = await bench.call("x")
        await one.finish("x", verdict)  # type: ignore[arg-type]
        await one.finish("x", verdict)  # type: ignore[arg-type]
        result = await call
        assert name_of(result) == "INFRASTRUCTURE"
        assert fault in result.detail
        await bench.add(two)
        again = await bench.call("y")
        holder = next(each for each in (one, two) if "y" in each.has)
        await holder.finish("y")
        assert name_of(await again) == "PASSED"
    finally:
        await bench.close()


@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize("frame", [runner_pb2.AttachResponse(), RunnerLost("the stream has ended")])
async def test_an_attempt_cancelled_while_its_answer_arrives_is_cancelled(
    frame: runner_pb2.AttachResponse | Exception, steps: int
) -> None:
    # A gateway that stops cancels its attempts and waits for their end.
    link = Link()
    attempt = asyncio.create_task(attach(link, 5))
    await settled()
    link.incoming.put_nowait(frame)
    for _ in range(steps):
        await asyncio.sleep(0)
    if attempt.cancel():
        with pytest.raises(asyncio.CancelledError):
            await attempt
    else:
        assert steps, "the answer cannot have arrived yet"
        attempt.exception()


async def told(link: Link) -> list[float]:
    return [frame.processor_time.seconds for frame in link.sent if frame.HasField("processor_time")]


async def test_a_runner_is_told_its_processor_time_while_a_job_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "_TELL_SECONDS", 0.02)
    link = Link()
    link.processor_seconds = 1.5
    runner = await attached_to(link)
    await asyncio.sleep(0.1)
    assert await told(link) == [], "nothing runs"
    job = asyncio.create_task(runner.execute(pb.ExecuteRequest()))
    async with asyncio.timeout(5):
        while not await told(link):  # noqa: ASYNC110 (another task changes it)
            await asyncio.sleep(0.01)
    assert set(await told(link)) == {1.5}
    link.tells(lambda frame: frame.outcome.CopyFrom(runner_pb2.Outcome(id=1, result=pb.Result(request_id="x"))))
    assert (await job).request_id == "x"
    await runner.close()


@pytest.mark.parametrize("seen", [None, OSError("no /proc")])
async def test_where_the_processor_time_is_not_seen_the_job_goes_on(
    monkeypatch: pytest.MonkeyPatch, seen: Exception | None
) -> None:
    monkeypatch.setattr(attached, "_TELL_SECONDS", 0.01)
    link = Link()
    link.processor_seconds = seen
    runner = await attached_to(link)
    job = asyncio.create_task(runner.execute(pb.ExecuteRequest()))
    await asyncio.sleep(0.1)
    await settled()
    link.tells(lambda frame: frame.outcome.CopyFrom(runner_pb2.Outcome(id=1, result=pb.Result(request_id="x"))))
    assert (await job).request_id == "x"
    assert await told(link) == []
    assert runner.is_alive
    await runner.close()
