"""Which program runs when and where: the dispatcher, with runners that do what a test says."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable

import pytest
import structlog
from prometheus_client import REGISTRY

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from codealign.sandbox.runners.attached import RunnerDrained
from codealign.sandbox.stations import Job

from .conftest import name_of
from .scripted import Bench, Scripted, settled


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.close()


async def error_of(call: Awaitable[pb.Result]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the test looks at what it is
        await call
    return caught.value


async def test_a_single_request_passes_ten_thousand_of_another_caller() -> None:
    bench = Bench(queue_limit=20_000)
    try:
        runner = Scripted("r")
        await bench.add(runner)
        await bench.calls(10_000, "a")
        await bench.call("single", "b")
        for _ in range(2):
            await runner.finish(runner.started[-1])
        assert runner.started == ["a0", "a1", "single"]
    finally:
        await bench.close()


async def test_a_full_queue_refuses_with_an_estimate_and_is_nobodys_alone() -> None:
    bench = Bench(queue_limit=3)
    try:
        runner = Scripted("r")
        await bench.add(runner)
        greedy = [await bench.call(f"a{number}", "a") for number in range(4)]
        refused = await error_of(await bench.call("a4", "a"))
        assert isinstance(refused, ResourceExhausted)
        assert refused.retry_after == 3.0, "three wait, one second each as long as nothing is known, one slot"
        await bench.call("b0", "b")
        assert isinstance(await error_of(greedy[3]), ResourceExhausted), "the newest of whoever has the most"
        assert bench.dispatcher.queued == 3
        await runner.finish("a0")
        await runner.finish("a1")
        assert runner.started == ["a0", "a1", "b0"]
    finally:
        await bench.close()


async def test_what_makes_room_may_have_been_given_up_in_the_same_moment() -> None:
    bench = Bench(queue_limit=2)
    try:
        await bench.call("a0", "a")
        newest = await bench.call("a1", "a")
        newest.cancel()
        call = asyncio.create_task(bench.dispatcher.execute(pb.ExecuteRequest(request_id="b0"), "b"))
        await settled()
        assert newest.cancelled()
        runner = Scripted("r", slots=3)
        await bench.add(runner)
        assert runner.started == ["a0", "b0"]
        call.cancel()
    finally:
        await bench.close()


async def test_a_caller_that_goes_away_takes_what_waits_with_it(bench: Bench) -> None:
    runner = Scripted("r")
    await bench.add(runner)
    await bench.call("runs")
    waiting = await bench.call("waits")
    assert bench.dispatcher.queued == 1
    waiting.cancel()
    await settled()
    assert bench.dispatcher.queued == 0
    bench._tasks.remove(waiting)
    del waiting
    gc.collect()
    held = [each.request.request_id for each in gc.get_objects() if isinstance(each, Job)]
    assert held == ["runs"], "a program that nobody waits for takes no memory"
    await runner.finish("runs")
    assert runner.started == ["runs"]


async def test_a_caller_that_goes_away_stops_what_runs(bench: Bench) -> None:
    runner = Scripted("r")
    await bench.add(runner)
    running = await bench.call("runs")
    await bench.call("next")
    running.cancel()
    await settled()
    assert runner.cancelled == ["runs"]
    assert runner.started == ["runs", "next"]
    assert bench.dispatcher.busy == 1


async def test_what_cannot_start_before_its_deadline_is_not_started(bench: Bench) -> None:
    runner = Scripted("r")
    await bench.add(runner)
    await bench.call("runs")
    late = await bench.call("late", seconds=0.2)
    error = await error_of(late)
    assert isinstance(error, DeadlineExceeded)
    assert "could not start before the deadline" in error.message
    assert bench.dispatcher.queued == 0
    await runner.finish("runs")
    assert isinstance(await error_of(await bench.call("too late", seconds=0.01)), DeadlineExceeded)
    assert runner.started == ["runs"]


async def test_what_will_certainly_wait_too_long_is_refused_at_once(bench: Bench) -> None:
    runner = Scripted("r")
    await bench.add(runner)
    for _ in range(20):
        bench.dispatcher._times.add(2.0)
    for number in range(6):
        await bench.call(str(number), seconds=1000)
    refused = await error_of(await bench.call("hurried", seconds=5))
    assert isinstance(refused, ResourceExhausted)
    assert "at the earliest" in refused.message
    assert refused.retry_after == pytest.approx(5.0, abs=0.1), "5 wait, 2 s each, less what the caller has"
    await bench.call("patient", seconds=1000)
    await bench.call("another's turn comes sooner", "b", seconds=5)
    assert bench.dispatcher.queued == 7


async def test_a_failed_attempt_goes_to_another_runner_even_if_that_one_is_busy(bench: Bench) -> None:
    one, two = Scripted("one"), Scripted("two")
    await bench.add(one)
    call = await bench.call("x")
    await bench.add(two)
    await bench.call("y")
    await one.finish("x", pb.VERDICT_INFRASTRUCTURE, detail="the harness did not start")
    await bench.call("z")
    assert (one.started, two.started) == (["x", "z"], ["y"]), "one's slot is for others meanwhile"
    await two.finish("y")
    assert two.started == ["y", "x"]
    await two.finish("x")
    assert name_of(await call) == "PASSED"


async def test_log_events_of_a_job_have_its_callers_ids_whoever_made_room_for_it(bench: Bench) -> None:
    class Noting(Scripted):
        async def execute(self, asked: pb.ExecuteRequest) -> pb.Result:
            seen.append((asked.request_id, structlog.contextvars.get_contextvars()["request_id"]))
            return await super().execute(asked)

    seen: list[tuple[str, str]] = []
    runner = Noting("r")
    await bench.add(runner)
    for name in ("x", "y", "z"):
        with structlog.contextvars.bound_contextvars(request_id=name):
            await bench.call(name)
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logged:
        await runner.finish("x")
        await runner.finish("y", pb.VERDICT_INFRASTRUCTURE)
    assert seen == [(name, name) for name in ("x", "y", "y")]
    assert [event["request_id"] for event in logged if event["event"] == "attempt_failed"] == ["y"]


async def test_results_without_a_verdict_are_counted_from_zero_on(bench: Bench) -> None:
    runner = Scripted("r")
    runner.description.profiles.append("numeric")
    await bench.add(runner)
    labels = {"verdict": "INFRASTRUCTURE", "profile": "numeric"}
    assert REGISTRY.get_sample_value("codealign_sandbox_results_total", labels) == 0


async def test_three_failures_are_an_infrastructure_fault_with_the_evidence_of_each(bench: Bench) -> None:
    first = Scripted("first")
    await bench.add(first, place=0)
    call = await bench.call("x")
    await first.finish("x", pb.VERDICT_INFRASTRUCTURE, detail="the harness did not start")
    assert first.started == ["x", "x"], "it is the only one"
    await first.lose()
    second = Scripted("second")
    await bench.add(second, place=0)
    await second.lose()
    result = await call
    assert name_of(result) == "INFRASTRUCTURE"
    assert result.detail == (
        "no runner could run it in 3 attempts: 1. first: the harness did not start; 2. first: its stream ended; "
        "3. second: its stream ended"
    )
    assert bench.dispatcher.queued == 0


async def test_a_runner_that_is_started_again_is_no_other_runner(bench: Bench) -> None:
    lost, other = Scripted("lost"), Scripted("other")
    await bench.add(lost, place=0)
    await bench.call("x")
    await bench.add(other, place=1)
    await bench.call("y")
    await lost.lose()
    again = Scripted("again")
    await bench.add(again, place=0)
    assert again.started == []
    await other.finish("y")
    assert other.started == ["y", "x"]


async def test_jobs_whose_runner_was_lost_run_one_at_a_time_and_before_others(bench: Bench) -> None:
    lost = Scripted("lost", slots=2)
    await bench.add(lost)
    for name in ("x", "y", "waits"):
        await bench.call(name)
    await lost.lose()
    runner = Scripted("r", slots=3)
    await bench.add(runner)
    assert len(runner.started) == 2
    suspect, other = runner.started
    assert (suspect in "xy", other) == (True, "waits")
    await runner.finish(suspect)
    assert sorted(runner.started) == ["waits", "x", "y"]


async def test_a_runner_that_is_taken_away_gives_its_jobs_back(bench: Bench) -> None:
    one, two = Scripted("one"), Scripted("two")
    serving = await bench.add(one)
    call = await bench.call("x")
    serving.cancel()
    await settled()
    assert one.cancelled == ["x"]
    assert (one.started, bench.dispatcher.queued) == (["x"], 1)
    await bench.add(two)
    await two.finish("x")
    assert name_of(await call) == "PASSED"


async def test_a_runner_that_drains_gives_its_jobs_back_and_that_is_no_fault() -> None:
    bench = Bench(attempts=1)
    try:
        one, two = Scripted("one"), Scripted("two")
        await bench.add(one)
        call = await bench.call("x")
        await bench.call("waits")
        await one.lose(RunnerDrained("it drains"))
        await bench.add(two)
        assert two.started == ["x"], "it keeps its place"
        await two.finish("x")
        assert name_of(await call) == "PASSED"
    finally:
        await bench.close()


async def test_a_fault_of_the_gateways_own_is_an_attempt_too(bench: Bench) -> None:
    runner = Scripted("r")
    await bench.add(runner)
    call = await bench.call("x")
    runner.has["x"].set_exception(ValueError("message too large"))
    await settled()
    await runner.finish("x")
    assert name_of(await call) == "PASSED"


async def test_everything_that_waits_is_answered_when_no_runner_will_come(bench: Bench) -> None:
    calls = [await bench.call(name) for name in "xy"]
    await bench.dispatcher.refuse(Unavailable("no runner starts"))
    for call in calls:
        assert isinstance(await error_of(call), Unavailable)
    assert bench.dispatcher.queued == 0


async def test_without_a_runner_requests_wait(bench: Bench) -> None:
    call = await bench.call("x")
    assert bench.dispatcher.queued == 1
    runner = Scripted("r")
    await bench.add(runner)
    await runner.finish("x")
    assert name_of(await call) == "PASSED"
