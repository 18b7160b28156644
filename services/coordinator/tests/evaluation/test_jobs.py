"""Evaluations survive disconnected callers, killed coordinators and unavailable services."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import CodeAlignError, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from codealign.coordinator.ground import calls
from codealign.coordinator.servicer import CoordinatorServicer
from fakes.following import PROBLEMS, Coordinator, World, settings
from fakes.virtual_time import in_virtual_time

JOB = pb.KIND_EVALUATION_JOB
SUCCEEDED, FAILED, CANCELLED = pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED


@in_virtual_time
async def test_an_evaluation_is_a_job_that_tells_how_far_it_is_and_then_its_result(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 2.0
    messages = await Coordinator(world, "a").evaluate(settings())
    (job,) = world.dataset.of_kind(JOB)
    assert job.evaluation_job.settings == settings("base", "rev-base", samples=1, max_tokens=1024)
    assert {message.job for message in messages} == {job.id}
    assert messages[0].problems_total == PROBLEMS
    assert messages[-1].evaluation.pass_at_k == {1: 0.5}
    assert messages[-1].evaluation.verdicts == {"PASSED": 3, "FAILED_ASSERTION": 3}
    assert (await world.standing(JOB)).state == SUCCEEDED


@in_virtual_time
async def test_a_finished_evaluation_is_answered_from_the_store(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = await Coordinator(world, "a").evaluate(settings())
    world.inference.control.go_away()
    (again,) = await Coordinator(world, "b").evaluate(settings("base", "rev-base"))
    assert again.evaluation == first[-1].evaluation
    assert again.problems_reused == PROBLEMS
    assert world.inference.generated == PROBLEMS
    assert (await world.standing(JOB)).number == 0, "nothing was asked for again"


@in_virtual_time
async def test_a_caller_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 2.0
    coordinator = Coordinator(world, "a")
    stream = coordinator.evaluations.evaluate(api.EvaluateRequest(settings=settings()))
    await anext(stream)
    await stream.aclose()
    assert (await world.until_ended(JOB)).state == SUCCEEDED
    assert len(world.results()) == PROBLEMS


@in_virtual_time
async def test_it_is_watched_from_another_coordinator_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 10.0
    one = Coordinator(world, "a", seeds_in_flight=1)
    other = Coordinator(world, "b")
    task = asyncio.create_task(one.evaluate(settings()))

    async def begun() -> bool:
        return bool(world.results())

    await world.until(begun)
    watched = await other.evaluate(settings())
    assert [message.problems_done for message in watched] == list(range(watched[0].problems_done, PROBLEMS + 1))
    assert watched[-1].evaluation == (await task)[-1].evaluation
    assert world.inference.generated == PROBLEMS


@in_virtual_time
async def test_killed_after_any_append_it_goes_on_elsewhere_to_the_same_results(tmp_path: Path) -> None:
    undisturbed = World(tmp_path)
    expected = (await Coordinator(undisturbed, "a").evaluate(settings()))[-1].evaluation
    appends = undisturbed.dataset.control.calls["append"]
    assert appends > 4
    for number in range(1, appends + 1):
        world = World(tmp_path)
        killed = Coordinator(world, "a")
        world.kill_at_append(killed, number)
        task = asyncio.create_task(killed.evaluate(settings()))
        await asyncio.sleep(1)
        task.cancel()
        other = Coordinator(world, "b")
        found = (await other.evaluate(settings()))[-1].evaluation
        assert found == expected, f"killed after append {number}"
        assert world.results() == undisturbed.results()
        assert (await world.standing(JOB)).state == SUCCEEDED
        await other.drain()


@in_virtual_time
async def test_a_drained_coordinator_hands_it_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 2.0
    one = Coordinator(world, "a", seeds_in_flight=1)
    stream = one.evaluations.evaluate(api.EvaluateRequest(settings=settings()))
    async for message in stream:
        if message.problems_done:
            break
    await stream.aclose()
    await one.drain()
    assert 0 < len(world.results()) < PROBLEMS
    await Coordinator(world, "b").evaluate(settings())
    assert world.inference.generated == PROBLEMS


@in_virtual_time
async def test_a_silent_watch_ends_at_once_when_the_server_begins_to_stop(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 1000.0
    coordinator = Coordinator(world, "a")
    nothing: Any = None  # an evaluation needs neither runs nor a context
    servicer = CoordinatorServicer(
        nothing,
        coordinator.loops,
        nothing,
        coordinator.evaluations,
        nothing,
        coordinator.services,
        coordinator.draining,
    )
    stream = servicer.Evaluate(api.EvaluateRequest(settings=settings()), nothing)
    assert (await anext(stream)).problems_done == 0
    silent = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(30)
    assert not silent.done()
    begun = asyncio.get_running_loop().time()
    coordinator.draining.set()
    with pytest.raises(Unavailable, match="the evaluation continues: watch it again"):
        await silent
    assert asyncio.get_running_loop().time() - begun < 0.1
    await coordinator.drain()


@pytest.mark.parametrize("service", ["inference", "sandbox", "dataset"])
def test_a_service_that_is_away_is_waited_for(tmp_path: Path, service: str) -> None:
    @in_virtual_time
    async def test() -> None:
        world = World(tmp_path)
        world.inference.seconds = 1.0
        coordinator = Coordinator(world, "a", seeds_in_flight=1)
        told = []
        control = getattr(world, service).control

        async def watch() -> api.EvaluateResponse:
            async for message in coordinator.evaluations.evaluate(api.EvaluateRequest(settings=settings())):
                told.append(message)
            return told[-1]

        watching = asyncio.create_task(watch())
        await asyncio.sleep(2.2)
        control.go_away()
        await asyncio.sleep(60)
        assert any(service in message.waiting_for for message in told)
        control.come_back()
        assert (await watching).evaluation.problems_done == PROBLEMS
        assert (await world.standing(JOB)).state == SUCCEEDED

    test()


@in_virtual_time
async def test_it_is_cancelled_and_the_same_call_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 5.0
    coordinator = Coordinator(world, "a", seeds_in_flight=1)
    watching = asyncio.create_task(coordinator.evaluate(settings()))

    async def begun() -> bool:
        return bool(world.results())

    await world.until(begun)
    (job,) = world.dataset.of_kind(JOB)
    status = await coordinator.evaluations.cancel(job.id[:8])
    assert status.wanted == CANCELLED
    with pytest.raises(FailedPrecondition, match="was cancelled: repeat the call to continue it"):
        await watching
    before = len(world.results())
    await asyncio.sleep(60)
    assert len(world.results()) == before < PROBLEMS
    (listed,) = await coordinator.evaluations.list()
    assert (listed.id, listed.state, listed.settings.benchmarks[0]) == (job.id, CANCELLED, "humaneval")
    messages = await coordinator.evaluate(settings())
    assert messages[-1].evaluation.problems_done == PROBLEMS
    assert messages[-1].problems_reused == before
    with pytest.raises(FailedPrecondition, match="has ended"):
        await coordinator.evaluations.cancel(job.id)


@pytest.mark.parametrize(
    ("evaluation", "error"),
    [("abc", InvalidArgument), ("abcdef", NotFound)],
)
def test_only_an_evaluation_is_cancelled(tmp_path: Path, evaluation: str, error: type[CodeAlignError]) -> None:
    @in_virtual_time
    async def test() -> None:
        with pytest.raises(error):
            await Coordinator(World(tmp_path), "a").evaluations.cancel(evaluation)

    test()


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (settings("other"), NotFound, "model other is not loaded; loaded: base"),
        (settings("base", "rev-x"), InvalidArgument, "settings.model.revision: inference serves base at revision"),
        (settings(prompt_style="tuned"), InvalidArgument, "settings.prompt_style: model base has no chat template"),
        (settings(benchmarks=["nanoeval"]), NotFound, "nanoeval: no such file"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_is_recorded(
    tmp_path: Path, given: pb.EvaluationSettings, error: type[CodeAlignError], says: str
) -> None:
    @in_virtual_time
    async def test() -> None:
        world = World(tmp_path)
        with pytest.raises(error, match=says):
            await Coordinator(world, "a").evaluate(given)
        assert not world.dataset.records

    test()


@in_virtual_time
async def test_a_cause_that_shows_later_is_the_jobs_failure_and_the_watchers_status(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 1.0
    coordinator = Coordinator(world, "a", seeds_in_flight=1)
    watching = asyncio.create_task(coordinator.evaluate(settings("base", "rev-base")))

    async def begun() -> bool:
        return bool(world.results())

    await world.until(begun)
    world.inference.models.clear()
    world.inference.add_model("other")
    with pytest.raises(NotFound, match="model base is not loaded; loaded: other"):
        await watching
    standing = await world.standing(JOB)
    assert standing.state == FAILED
    assert "base" in standing.message


@in_virtual_time
async def test_undecided_samples_are_judged_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_PAUSE_SECONDS", 0.0)
    world = World(tmp_path)
    judges = world.sandbox.judges
    world.sandbox.judges = lambda program: (
        sb.Result(verdict=sb.VERDICT_INFRASTRUCTURE) if "add_3" in program.code else judges(program)
    )
    coordinator = Coordinator(world, "a")
    found = (await coordinator.evaluate(settings()))[-1].evaluation
    assert (found.problems_done, found.undecided) == (PROBLEMS - 1, 1)
    assert "1 samples undecided" in (await world.standing(JOB)).message
    world.sandbox.judges = judges
    found = (await coordinator.evaluate(settings()))[-1].evaluation
    assert (found.problems_done, found.undecided) == (PROBLEMS, 0)


@in_virtual_time
async def test_validating_loads_no_model_and_records_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.control.go_away()
    request = api.EvaluateRequest(settings=settings(limit=4), validate_only=True)
    (message,) = [each async for each in Coordinator(world, "a").evaluations.evaluate(request)]
    assert (message.benchmark, message.problems_total, message.job) == ("humaneval", 4, "")
    assert not world.dataset.records
