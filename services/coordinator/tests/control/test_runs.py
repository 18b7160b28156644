"""Runs through the service's methods, over fakes: creating, watching, pausing, executing again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from codealign.common.health import Readiness
from codealign.coordinator import pipelines
from codealign.coordinator.main import wire
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.config import run_records, with_defaults
from codealign.coordinator.runs.controller import WORK_LOG_SECONDS
from codealign.coordinator.settings import CoordinatorSettings
from fakes import FakeDataset, FakeServices, toys
from fakes.virtual_time import LoopClock, in_virtual_time

CONTEXT: Any = None
PAUSED, SUCCEEDED, RUNNING = pb.RUN_STATE_PAUSED, pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_RUNNING


async def slow(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    """Return a completion after one second."""
    await asyncio.sleep(1)
    return toys.writes(request, sample)


def fakes(seeds: int = 12) -> FakeServices:
    made = FakeServices(dataset=FakeDataset(LoopClock()))
    made.inference.writes, made.sandbox.judges = slow, toys.judges
    made.dataset.put(*toys.seeds(seeds), collection=toys.SEEDS)
    return made


@dataclass
class World:
    """A coordinator over the fakes."""

    fakes: FakeServices
    holder: str = "a"
    fields: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = CoordinatorSettings(
            dataset_address="-",
            inference_address="-",
            sandbox_address="-",
            lease_holder=self.holder,
            seeds_in_flight=2,
            **self.fields,
        )
        self.readiness = Readiness()
        self.controllers, self.servicer = wire(settings, self.fakes.services, BenchmarkTexts(), self.readiness)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[World]:
        async with self.controllers.working(self.readiness.draining):
            yield self

    async def create(self, **settings: Any) -> api.CreateRunResponse:
        config = pb.Run(
            pipeline=settings.pop("pipeline", "one-line"), seeds=pb.SeedSelection(collection=toys.SEEDS), **settings
        )
        return await self.servicer.CreateRun(api.CreateRunRequest(config=config), CONTEXT)

    async def get(self, run: str) -> api.RunStatus:
        return (await self.servicer.GetRun(api.GetRunRequest(run=run), CONTEXT)).run

    async def watch(self, run: str) -> list[api.RunStatus]:
        """Return every status until the run has ended."""
        request = api.WatchRunRequest(run=run)
        return [response.run async for response in self.servicer.WatchRun(request, CONTEXT)]


@in_virtual_time
async def test_a_run_is_made_carried_out_and_told_of() -> None:
    async with World(fakes()).working() as world:
        made = await world.create(name="first")
        assert not made.existed
        assert made.run.wanted == RUNNING
        execution = made.run.config.execution
        assert execution.image_digest == world.fakes.sandbox.runner.image_digest
        assert execution.limits.wall_seconds == world.fakes.sandbox.runner.profile_limits[0].defaults.wall_seconds
        told = await world.watch(made.run.id)
        assert {status.state for status in told[:-1]} == {RUNNING}
        last = told[-1]
        assert (last.state, last.version) == (SUCCEEDED, *world.fakes.dataset.versions)
        assert [stage.stage for stage in last.stages] == [
            "seeds",
            "instructions",
            "responses",
            "execution",
            "selection",
        ]
        assert last.stages[0].kept == 12
        assert (await world.get("first")).id == (await world.get(last.id[:8])).id == last.id
        listed = (await world.servicer.ListRuns(api.ListRunsRequest(), CONTEXT)).runs
        assert list(listed) == [await world.get(last.id)]


@in_virtual_time
async def test_a_run_with_a_target_has_a_forecast_until_it_ends_and_a_summary_in_its_report() -> None:
    async with World(fakes(seeds=40)).working() as world:
        run = (await world.create(target=pb.Target(rows=8, window=4, device_hours=100.0))).run.id
        told = await world.watch(run)
        forecasts = [status.forecast for status in told if status.HasField("forecast")]
        assert max(forecast.rows for forecast in forecasts) >= 6
        assert any("of 8 rows" in forecast.text for forecast in forecasts)
        assert not told[-1].HasField("forecast")
        assert told[-1].message.endswith("8 rows; the target is reached")
        report = await world.servicer.GetReport(api.GetReportRequest(run=run), CONTEXT)
        assert (report.rows, report.target.why, report.target.rows) == (8, "rows", 8)
        logs = world.fakes.dataset.of_kind(pb.KIND_WORK_LOG, run)
        assert sum(record.work_log.inference_seconds for record in logs) > 0


@in_virtual_time
async def test_a_target_with_a_strategy_that_draws_everything_has_a_note() -> None:
    world = World(fakes())
    config = pb.Run(pipeline="one-line", seeds=pb.SeedSelection(collection=toys.SEEDS), target=pb.Target(rows=3))
    plan = await world.servicer.PlanRun(api.PlanRunRequest(config=config), CONTEXT)
    assert not any("draws every attempt" in note for note in plan.notes)
    config.selection.strategy = "random-pass"
    plan = await world.servicer.PlanRun(api.PlanRunRequest(config=config), CONTEXT)
    assert any("'random-pass' draws every attempt" in note for note in plan.notes)


def finished(dataset: FakeDataset, number: int) -> None:
    """Store a finished run and its loop."""
    given = pb.Run(pipeline="one-line", seeds=pb.SeedSelection(collection=toys.SEEDS), seed=number)
    config, run = run_records(with_defaults(given))
    run.provenance.created_at.FromSeconds(1_000 + number)
    loop = records.complete(pb.Record(kind=pb.KIND_LOOP, parents=[run.id], loop=pb.Loop()))
    dataset.put(config, run, loop, *toys.seeds(2), collection=run.id)
    for subject, state in ((run, SUCCEEDED), (loop, pb.RUN_STATE_FAILED)):
        wanted, event = pb.RunRequest(wanted=RUNNING), pb.RunEvent(state=state, version="v-1", message="done")
        dataset.put(
            pb.Record(kind=pb.KIND_RUN_REQUEST, parents=[subject.id], run_request=wanted),
            pb.Record(kind=pb.KIND_RUN_EVENT, parents=[subject.id], run_event=event),
        )


@in_virtual_time
async def test_a_summary_of_all_runs_takes_as_many_calls_for_many_as_for_one() -> None:
    calls = []
    for runs in (1, 60):
        world = World(fakes())
        dataset = world.fakes.dataset
        for number in range(runs):
            finished(dataset, number)
        before = dataset.control.calls.total()
        listed = (await world.servicer.ListRuns(api.ListRunsRequest(summary_only=True), CONTEXT)).runs
        calls.append(dataset.control.calls.total() - before)
        assert [run.config.seed for run in listed] == list(reversed(range(runs)))
        assert {(run.state, run.version, len(run.stages)) for run in listed} == {(SUCCEEDED, "v-1", 0)}
        assert {(run.loop.state, run.loop.message) for run in listed} == {(pb.RUN_STATE_FAILED, "done")}
        (whole, *_) = (await world.servicer.ListRuns(api.ListRunsRequest(), CONTEXT)).runs
        assert whole.stages[0].stage == "seeds"
        before = dataset.control.calls.total()
        assert (await world.servicer._runs.find(whole.id[:8])).id == whole.id
        assert dataset.control.calls.total() - before == 1, "no call for each run"
    assert calls[0] == calls[1]


@in_virtual_time
async def test_the_same_run_made_twice_at_once_is_one_run_with_one_request() -> None:
    made = fakes()
    async with World(made).working() as first, World(made, "b").working() as second:
        answers = await asyncio.gather(first.create(), second.create(), first.create(name="other"), second.create())
        (run,) = {answer.run.id for answer in answers}
        told = await first.watch(run)
        assert told[-1].state == SUCCEEDED
        assert len(made.dataset.of_kind(pb.KIND_RUN)) == 1
        assert len(made.dataset.of_kind(pb.KIND_RUN_REQUEST)) == 1
        assert len(made.dataset.of_kind(pb.KIND_RUN_EVENT)) == 2
        asked = made.inference.generated
        again = await second.create()
        assert again.existed
        assert again.run.state == SUCCEEDED
        assert made.inference.generated == asked


@in_virtual_time
async def test_pause_and_resume_record_and_return_and_two_resumes_at_once_are_one() -> None:
    async with World(fakes()).working() as world:
        run = (await world.create()).run.id
        await asyncio.sleep(3)
        pausing = (await world.servicer.PauseRun(api.PauseRunRequest(run=run), CONTEXT)).run
        assert (pausing.state, pausing.wanted) == (RUNNING, PAUSED), "what is in flight is finished first"
        paused = (await world.watch(run))[-1]
        assert (paused.state, paused.message) == (PAUSED, "paused; resume with `codealign resume`")
        request = api.ResumeRunRequest(run=run)
        both = await asyncio.gather(*(world.servicer.ResumeRun(request, CONTEXT) for _ in range(2)))
        assert {answer.run.state for answer in both} == {RUNNING}
        assert (await world.watch(run))[-1].state == SUCCEEDED
        assert len(world.fakes.dataset.of_kind(pb.KIND_RUN_REQUEST)) == 3
        with pytest.raises(FailedPrecondition, match="has ended"):
            await world.servicer.PauseRun(api.PauseRunRequest(run=run), CONTEXT)


@in_virtual_time
async def test_who_pauses_or_cancels_is_told_so_before_the_controller_has_read_it() -> None:
    async with World(fakes()).working() as world:
        run = (await world.create()).run.id
        await asyncio.sleep(3)
        world.controllers.assigned[run].changed = asyncio.Event()  # nobody waits for it: the controller is slow
        pausing = (await world.servicer.PauseRun(api.PauseRunRequest(run=run), CONTEXT)).run
        assert (pausing.wanted, pausing.message) == (PAUSED, "pausing: in-flight work is being finished")
        cancelling = (await world.servicer.CancelRun(api.CancelRunRequest(run=run), CONTEXT)).run
        assert (cancelling.wanted, cancelling.message) == (pb.RUN_STATE_CANCELLED, "cancelling")


@in_virtual_time
async def test_an_outage_of_the_store_is_told_to_who_watches_and_the_run_goes_on() -> None:
    undisturbed = fakes()
    async with World(undisturbed).working() as world:
        await world.watch((await world.create()).run.id)
    async with World(fakes()).working() as world:
        run = (await world.create()).run.id
        watching = asyncio.create_task(world.watch(run))
        await asyncio.sleep(3)
        world.fakes.dataset.control.go_away()
        await asyncio.sleep(120)
        assert "the dataset service, since " in (await world.get(run)).waiting_for
        world.fakes.dataset.control.come_back()
        told = await watching
        assert any("connection refused" in status.waiting_for for status in told)
        assert told[-1].state == SUCCEEDED
        assert not told[-1].waiting_for
        assert world.fakes.dataset.versions.keys() == undisturbed.dataset.versions.keys()


@in_virtual_time
async def test_a_drain_ends_who_watches_and_another_coordinator_goes_on() -> None:
    made = fakes()
    first, second = World(made), World(made, "b")
    async with second.working():
        async with first.working():
            run = (await first.create()).run.id
            watching = asyncio.create_task(first.watch(run))
            await asyncio.sleep(2)
            assert run in first.controllers.assigned
            await first.readiness.drain()
            with pytest.raises(Unavailable, match="watch it again"):
                await watching
        assert (await second.watch(run))[-1].state == SUCCEEDED


@in_virtual_time
async def test_busy_seconds_are_recorded_about_every_minute_and_at_the_end() -> None:
    async with World(fakes(seeds=80)).working() as world:
        run = (await world.create()).run.id
        began = asyncio.get_running_loop().time()
        await world.watch(run)
        minutes = (asyncio.get_running_loop().time() - began) / WORK_LOG_SECONDS
        logs = world.fakes.dataset.of_kind(pb.KIND_WORK_LOG, run)
        assert minutes > 1
        assert len(logs) == int(minutes) + 1
        assert all(seconds > 0 for log in logs for seconds in log.work_log.busy_seconds.values())


@in_virtual_time
async def test_a_breaker_pauses_the_run_with_its_reason() -> None:
    made = fakes(seeds=200)
    made.inference.writes = lambda request, sample: toys.said("boom")
    async with World(made).working() as world:
        run = (await world.create()).run.id
        paused = (await world.watch(run))[-1]
        assert paused.state == paused.wanted == PAUSED
        assert "internal error" in paused.message


@in_virtual_time
async def test_a_run_is_judged_again_without_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(fakes()).working() as world:
        run = (await world.create()).run.id
        await world.watch(run)
        calls = world.fakes.inference.control.calls
        generated = calls["generate"]
        world.fakes.inference.control.go_away()
        again = await world.servicer.RejudgeRun(api.RejudgeRunRequest(run=run), CONTEXT)
        assert again.existed
        assert again.run.id == run, "nothing has changed since"
        limits = sb.Limits(wall_seconds=2.0)
        request = api.RejudgeRunRequest(run=run, name="stricter", execution=pb.ExecutionSettings(limits=limits))
        made = (await world.servicer.RejudgeRun(request, CONTEXT)).run
        assert made.config.rejudges == run
        assert made.config.execution.limits.wall_seconds == 2.0
        world.fakes.inference.control.come_back()
        assert (await world.watch(made.id))[-1].state == SUCCEEDED
        assert calls["generate"] == generated
        assert (await world.servicer.RejudgeRun(request, CONTEXT)).existed
        real = dict(pipelines._pipelines())
        monkeypatch.setattr(pipelines, "_pipelines", lambda: {**real, **toys.shapes(version=2)})
        newer = await world.servicer.RejudgeRun(api.RejudgeRunRequest(run=run), CONTEXT)
        assert not newer.existed
        assert newer.run.id != run


@in_virtual_time
async def test_a_run_is_judged_again_whose_model_is_no_longer_loaded() -> None:
    async with World(fakes()).working() as world:
        run = (await world.create()).run.id
        await world.watch(run)
        world.fakes.inference.models.clear()
        execution = pb.ExecutionSettings(limits=sb.Limits(wall_seconds=2.0))
        made = (await world.servicer.RejudgeRun(api.RejudgeRunRequest(run=run, execution=execution), CONTEXT)).run
        last = (await world.watch(made.id))[-1]
        assert last.state == SUCCEEDED, last.message
        assert [each.promise for each in world.fakes.dataset.published] == ["reproducible", "replayable"]


@in_virtual_time
async def test_what_is_not_proved_of_an_engine_is_said_in_the_manifest_and_not_promised() -> None:
    async with World(fakes()).working() as world:
        for model in world.fakes.inference.models.values():
            model.batch_invariant, model.unproved = False, "a warm prefix cache gives the same tokens"
        await world.watch((await world.create()).run.id)
        (published,) = world.fakes.dataset.published
    assert published.promise == "replayable"
    assert published.facts["unproved"] == "a warm prefix cache gives the same tokens"


@in_virtual_time
async def test_a_run_at_work_is_not_judged_again() -> None:
    async with World(fakes()).working() as world:
        run = (await world.create()).run.id
        with pytest.raises(FailedPrecondition, match="is still running"):
            await world.servicer.RejudgeRun(api.RejudgeRunRequest(run=run), CONTEXT)


@in_virtual_time
async def test_what_is_missing_is_one_error_that_names_it() -> None:
    world = World(fakes())
    runner = world.fakes.sandbox.runner
    with pytest.raises(NotFound, match="has no seeds"):
        await world.servicer.CreateRun(
            api.CreateRunRequest(config=pb.Run(pipeline="one-line", seeds=pb.SeedSelection(collection="none"))), CONTEXT
        )
    with pytest.raises(InvalidArgument, match=r"config\.execution\.profile.*'big'.*default"):
        await world.create(execution=pb.ExecutionSettings(profile="big"))
    with pytest.raises(InvalidArgument, match=r"config\.execution\.limits\.wall_seconds"):
        await world.create(execution=pb.ExecutionSettings(limits=sb.Limits(wall_seconds=1e6)))
    with pytest.raises(InvalidArgument, match=r"config\.model\.revision"):
        await world.create(model=pb.ModelChoice(revision="another"))
    runner.state = sb.RUNNER_STATE_STARTING
    with pytest.raises(Unavailable, match="no runner is ready"):
        await world.create()
    await world.create(pipeline="no-execution")
    reads_only = World(fakes(), fields={"reads_only": True})
    with pytest.raises(FailedPrecondition, match="READS_ONLY"):
        await reads_only.create()
    assert [run.run.pipeline for run in world.fakes.dataset.of_kind(pb.KIND_RUN)] == ["no-execution"]


@in_virtual_time
async def test_a_caller_that_goes_away_leaves_a_run_and_its_request_or_neither() -> None:
    for moment in range(0, 60, 6):
        async with World(fakes(seeds=1)).working() as world:
            handler = asyncio.create_task(world.create())
            for _ in range(moment):
                await asyncio.sleep(0)
            handler.cancel()
            await asyncio.wait([handler])
            await asyncio.sleep(60)
            dataset = world.fakes.dataset
            runs, events = dataset.of_kind(pb.KIND_RUN), dataset.of_kind(pb.KIND_RUN_EVENT)
            assert len(runs) == len(dataset.of_kind(pb.KIND_RUN_REQUEST))
            states = [event.run_event.state for event in sorted(events, key=lambda event: event.attempt)]
            assert states == [RUNNING, SUCCEEDED] * len(runs)


@pytest.mark.parametrize(
    ("made_elsewhere", "says"),
    [
        (pb.Run(name="old", pipeline="one-line"), "no settings for stage 'instructions'"),
        (pb.Run(name="old", pipeline="evolve"), "unknown pipeline 'evolve'"),
    ],
)
@in_virtual_time
async def test_a_run_of_another_release_is_told_of_fails_with_one_error_and_breaks_no_other(
    made_elsewhere: pb.Run, says: str
) -> None:
    async with World(fakes(2)).working() as world:
        made = await world.create()
        made_elsewhere.seeds.collection = toys.SEEDS
        config, old = run_records(made_elsewhere)
        world.fakes.dataset.put(config, old, collection=old.id)
        await world.watch(made.run.id)
        listed = {run.id: run for run in (await world.servicer.ListRuns(api.ListRunsRequest(), CONTEXT)).runs}
        assert listed[made.run.id].state == SUCCEEDED
        assert says in " ".join(listed[old.id].notes)
        report = await world.servicer.GetReport(api.GetReportRequest(run="old"), CONTEXT)
        assert says in " ".join(report.run.notes)
        await world.servicer.ResumeRun(api.ResumeRunRequest(run="old"), CONTEXT)
        [*_, last] = await world.watch(old.id)
        assert (last.state, last.version) == (pb.RUN_STATE_FAILED, "")
        assert says in last.message


@in_virtual_time
async def test_a_limit_that_is_no_number_is_refused() -> None:
    world = World(fakes(2))
    execution = pb.ExecutionSettings(limits=sb.Limits(wall_seconds=float("nan")))
    with pytest.raises(InvalidArgument, match=r"config\.execution\.limits\.wall_seconds: is nan"):
        await world.create(execution=execution)


@pytest.mark.parametrize("evaluation", ["", "abc", "no-hexadecimal", "a" * 33])
async def test_an_evaluation_that_can_be_none_is_refused_by_the_field_that_names_it(evaluation: str) -> None:
    request = api.CancelEvaluationRequest(evaluation=evaluation)
    with pytest.raises(InvalidArgument, match=r"^evaluation: "):
        await World(fakes(0)).servicer.CancelEvaluation(request, CONTEXT)


def violated(caught: pytest.ExceptionInfo[InvalidArgument]) -> dict[str, str]:
    """Return the violations by field."""
    return dict(caught.value.violations)


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (pb.ModelChoice(model="gone", revision="rev"), NotFound, "model gone is not loaded"),
        (pb.ModelChoice(model="model", revision="rev-other"), InvalidArgument, "config.model.model: .* as other"),
        (pb.ModelChoice(model="model", revision="none"), InvalidArgument, r"config\.model\.revision: "),
        (pb.ModelChoice(model="gone"), NotFound, "gone"),
    ],
)
@in_virtual_time
async def test_a_run_with_a_loop_whose_model_is_not_loaded_leaves_nothing_behind(
    model: pb.ModelChoice, error: type[Exception], says: str
) -> None:
    async with World(fakes(2), fields={"training_address": "-"}).working() as world:
        world.fakes.inference.add_model("other", "rev-other")
        before = set(world.fakes.dataset.records)
        config = pb.Run(pipeline="one-line", seeds=pb.SeedSelection(collection=toys.SEEDS), model=model)
        with pytest.raises(error, match=says):
            await world.servicer.CreateRun(api.CreateRunRequest(config=config, loop=pb.Loop()), CONTEXT)
        await asyncio.sleep(30)
        assert set(world.fakes.dataset.records) == before


@in_virtual_time
async def test_a_status_reads_the_loops_of_its_run_once() -> None:
    world = World(fakes(2), fields={"training_address": "-"})
    config = pb.Run(pipeline="one-line", seeds=pb.SeedSelection(collection=toys.SEEDS))
    created = await world.servicer.CreateRun(api.CreateRunRequest(config=config, loop=pb.Loop()), CONTEXT)
    scanned: list[int] = []

    def before(method: str, request: Any) -> None:
        if method == "scan":
            scanned.append(request.kind)

    world.fakes.dataset.control.before = before
    assert (await world.get(created.run.id)).loop.id == created.run.loop.id
    assert scanned.count(pb.KIND_LOOP) == 1


@in_virtual_time
async def test_what_is_wrong_with_a_run_and_with_its_loop_is_said_at_once() -> None:
    world = World(fakes(2), fields={"training_address": "-"})
    loop = pb.Loop(evaluations=[pb.EvaluationSettings(benchmarks=["humaneval"], limit=-1)])
    loop.training.epochs = 2000
    config, servicer = pb.Run(pipeline="one-line"), world.servicer
    with pytest.raises(InvalidArgument) as caught:
        await servicer.CreateRun(api.CreateRunRequest(config=config, loop=loop), CONTEXT)
    assert set(violated(caught)) == {"config.seeds.collection", "loop.evaluations[0].limit", "loop.training.epochs"}
    with pytest.raises(InvalidArgument) as planned:
        await servicer.PlanRun(api.PlanRunRequest(config=config, loop=loop), CONTEXT)
    assert violated(planned) == violated(caught)


@in_virtual_time
async def test_the_plan_of_a_training_on_some_rows_counts_the_seeds_once() -> None:
    world = World(fakes(2), fields={"training_address": "-"})
    config = pb.Run(pipeline="one-line", seeds=pb.SeedSelection(collection=toys.SEEDS))
    loop, counted = pb.Loop(), list[str]()
    loop.training.rows = 2

    def before(method: str, request: Any) -> None:
        if method == "count":
            counted.append(request.collection)

    world.fakes.dataset.control.before = before
    planned = await world.servicer.PlanRun(api.PlanRunRequest(config=config, loop=loop), CONTEXT)
    assert planned.stages[0].items == 2
    assert counted.count(toys.SEEDS) == 1
    loop.training.rows = 3
    with pytest.raises(InvalidArgument, match=r"is 3; the run's seeds give at most 2 rows"):
        await world.servicer.PlanRun(api.PlanRunRequest(config=config, loop=loop), CONTEXT)
    config.target.rows, loop.training.rows = 1, 2
    with pytest.raises(InvalidArgument, match=r"is 2; the run's seeds and target give at most 1 rows"):
        await world.servicer.CreateRun(api.CreateRunRequest(config=config, loop=loop), CONTEXT)


@in_virtual_time
async def test_a_loop_after_a_run_in_which_no_model_writes_needs_a_model_by_name() -> None:
    world = World(fakes(), fields={"training_address": "-"})
    answer = pb.Record(kind=pb.KIND_RESPONSE, response=pb.Response(answer="a", code="a = 1"))
    world.fakes.dataset.put(records.complete(answer), collection="theirs")
    config = pb.Run(pipeline="imported-unexecuted", seeds=pb.SeedSelection(collection="theirs"))
    with pytest.raises(InvalidArgument) as caught:
        await world.servicer.CreateRun(api.CreateRunRequest(config=config, loop=pb.Loop()), CONTEXT)
    assert violated(caught) == {
        "config.model.model": "must be set: no model writes in this run, so name the one to train and evaluate; "
        "loaded: model"
    }
    assert not world.fakes.dataset.of_kind(pb.KIND_RUN)
    config.model.model = "model"
    created = await world.servicer.CreateRun(api.CreateRunRequest(config=config, loop=pb.Loop()), CONTEXT)
    assert created.run.loop.config.training.model == "model"


@in_virtual_time
async def test_a_training_on_more_rows_than_the_seeds_can_give_is_refused_before_the_run() -> None:
    world = World(fakes(2), fields={"training_address": "-"})
    config = pb.Run(pipeline="one-line", seeds=pb.SeedSelection(collection=toys.SEEDS))
    loop = pb.Loop()
    loop.training.rows = 3
    with pytest.raises(InvalidArgument) as caught:
        await world.servicer.CreateRun(api.CreateRunRequest(config=config, loop=loop), CONTEXT)
    assert violated(caught) == {"loop.training.rows": "is 3; the run's seeds give at most 2 rows"}
    assert not world.fakes.dataset.of_kind(pb.KIND_RUN)


@in_virtual_time
async def test_fields_that_the_service_sets_are_refused_with_everything_else_that_is_wrong() -> None:
    world = World(fakes(2))
    stages = [
        pb.StageSettings(stage="instructions", version=1),
        pb.StageSettings(stage="responses", attempts=1000, model=pb.ModelChoice(model="model", revision="another")),
        pb.StageSettings(stage="respones"),
    ]
    given: dict[str, Any] = {
        "rejudges": "a" * 32,
        "stages": stages,
        "model": pb.ModelChoice(revision="another"),
        "execution": pb.ExecutionSettings(
            image_digest="sha256:1", python_version="3.9", limits=sb.Limits(wall_seconds=1e6)
        ),
        "selection": pb.SelectionSettings(rules_version=1, forbidden_texts_sha256="5e" * 32, instruction_words=-1),
    }
    by_the_service = {
        "config.rejudges",
        "config.stages[0].version",
        "config.execution.image_digest",
        "config.execution.python_version",
        "config.selection.rules_version",
        "config.selection.forbidden_texts_sha256",
    }
    with pytest.raises(InvalidArgument) as caught:
        await world.create(**given)
    found = violated(caught)
    assert {field for field, text in found.items() if "is set by the service; leave it empty" in text} == by_the_service
    assert set(found) - by_the_service == {
        "config.stages[1].attempts",
        "config.stages[2].stage",
        "config.model.revision",
        "config.execution.limits.wall_seconds",
        "config.selection.instruction_words",
    }
    world.fakes.sandbox.control.go_away()
    with pytest.raises(InvalidArgument, match="rules_version"):
        await world.create(**given)
    assert not world.fakes.dataset.of_kind(pb.KIND_RUN)


@in_virtual_time
async def test_what_the_service_sets_is_refused_where_a_run_is_judged_again() -> None:
    async with World(fakes(2)).working() as world:
        run = (await world.create()).run.id
        await world.watch(run)
        execution = pb.ExecutionSettings(image_digest="sha256:1", runs=11, limits=sb.Limits(wall_seconds=1e6))
        with pytest.raises(InvalidArgument) as caught:
            await world.servicer.RejudgeRun(api.RejudgeRunRequest(run=run, name="\n", execution=execution), CONTEXT)
        assert set(violated(caught)) == {
            "execution.image_digest",
            "execution.runs",
            "execution.limits.wall_seconds",
            "name",
        }
        assert len(world.fakes.dataset.of_kind(pb.KIND_RUN)) == 1
