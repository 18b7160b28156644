"""A series carries out its rounds in order, resumes after any kill, and stops when its models degrade."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common.errors import InvalidArgument
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.rounds.operations import has_settled
from codealign.coordinator.rounds.request import MAX_ROUNDS, checked
from fakes.rounds import Data, RoundsCoordinator, RoundsWorld, asked
from fakes.virtual_time import in_virtual_time

SERIES = pb.KIND_SERIES
RUNNING, PAUSED, CANCELLED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_CANCELLED
SUCCEEDED, FAILED = pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED


async def carried_out(world: RoundsWorld, request: api.CreateRunRequest) -> tuple[RoundsCoordinator, Standing]:
    coordinator = RoundsCoordinator(world, "a")
    await coordinator.create(request)
    return coordinator, await world.until_ended(SERIES)


async def status(coordinator: RoundsCoordinator, run_id: str) -> api.SeriesStatus:
    found = await coordinator.rounds.status(run_id)
    assert found is not None
    return found


@in_virtual_time
async def test_the_model_tuned_in_a_round_generates_the_next_rounds_data(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator, standing = await carried_out(world, asked(world, 3))
    assert standing.state == SUCCEEDED, standing.message
    first, second, third = world.runs()
    rounds = (await status(coordinator, first.id)).rounds
    assert [each.run for each in rounds] == [first.id, second.id, third.id]
    assert [each.data.version for each in rounds] == ["v-1", "v-2", "v-3"]
    assert (second.run.model, third.run.model) == (rounds[0].tuned, rounds[1].tuned)
    assert [second.run.name, len({each.run.seed for each in world.runs()})] == [f"round 2 of {first.id[:12]}", 3]
    assert {each.run.seeds.collection for each in world.runs()} == {"seeds"}
    trainings = {each.spec.dataset: each.spec.model for each in world.training.trainings.values()}
    assert trainings == {"v-1": "/models/base", "v-2": "/models/base", "v-3": "/models/base"}
    assert standing.message == f"3 rounds; the last model is {rounds[2].tuned.model}, tuned on v-3"
    for each in rounds:
        assert each.data.rows == 4
        assert each.data.pass_rate == 0.5
        assert each.data.concepts == 5
        assert 0 < each.data.instructions.distinct_1 < each.data.instructions.distinct_2 < 1
        assert 0 < each.data.instructions.similarity < 1


@in_virtual_time
async def test_the_base_model_is_evaluated_once_and_every_tuned_model_is(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator, _ = await carried_out(world, asked(world, 3))
    evaluations = [each.evaluation_job.settings for each in world.dataset.of_kind(pb.KIND_EVALUATION_JOB)]
    assert sorted(each.prompt_style for each in evaluations) == ["base", "tuned", "tuned", "tuned"]
    assert len({each.model.revision for each in evaluations}) == 4
    assert all(len(each.model.model) == len("base-") + 8 for each in evaluations if each.prompt_style == "tuned")
    await coordinator.drain()


@in_virtual_time
async def test_models_of_old_rounds_are_unloaded(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator, _ = await carried_out(world, asked(world, 4))
    rounds = (await status(coordinator, world.runs()[0].id)).rounds
    assert set(world.inference.models) == {"base", rounds[2].tuned.model, rounds[3].tuned.model}


@in_virtual_time
async def test_a_small_machine_holds_one_model_at_a_time(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    request = asked(world)
    request.loop.one_model = True
    coordinator, standing = await carried_out(world, request)
    assert standing.state == SUCCEEDED, standing.message
    rounds = (await status(coordinator, world.runs()[0].id)).rounds
    assert list(world.inference.models) == [rounds[1].tuned.model]


@in_virtual_time
async def test_responses_can_stay_with_the_base_model(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator, standing = await carried_out(world, asked(world, generates="instructions"))
    assert standing.state == SUCCEEDED, standing.message
    first, second = world.runs()
    tuned = (await status(coordinator, first.id)).rounds[0].tuned
    assert second.run.model == first.run.model
    models = {stage.stage: stage.model for stage in second.run.stages if stage.HasField("model")}
    assert models == {"concepts": tuned, "instructions": tuned}


@in_virtual_time
async def test_training_can_go_on_from_the_previous_model(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator, standing = await carried_out(world, asked(world, 3, train_from="previous"))
    assert standing.state == SUCCEEDED, standing.message
    trainings = {each.spec.dataset: each for each in world.training.trainings.values()}
    assert trainings["v-1"].spec.model == "/models/base"
    for version, before in (("v-2", trainings["v-1"]), ("v-3", trainings["v-2"])):
        spec = trainings[version].spec
        assert (spec.model, spec.model_revision) == (before.artifact_url, f"rev-{before.id}")
    rounds = (await status(coordinator, world.runs()[0].id)).rounds
    assert [len(each.tuned.model) for each in rounds] == [len("base-") + 8] * 3


@in_virtual_time
async def test_killed_after_any_append_it_goes_on_elsewhere_with_the_same_records(tmp_path: Path) -> None:
    def small() -> RoundsWorld:
        world = RoundsWorld(tmp_path)
        world.data = {1: Data(rows=1, responses=1), 2: Data(rows=1, responses=1)}
        return world

    def request(world: RoundsWorld) -> api.CreateRunRequest:
        evaluations = [pb.EvaluationSettings(benchmarks=["humaneval"], limit=1)]
        return asked(world, loop=pb.Loop(training=tr.TrainingSpec(epochs=2), evaluations=evaluations))

    undisturbed = small()
    alone, _ = await carried_out(undisturbed, request(undisturbed))
    await alone.drain()
    appends = undisturbed.dataset.control.calls["append"]
    assert appends > 30
    for number in range(1, appends + 1):
        world = small()
        killed = RoundsCoordinator(world, "a")
        world.kill_at_append(killed, number)
        asking = asyncio.create_task(killed.create(request(world)))
        await asyncio.sleep(30)
        asking.cancel()
        other = RoundsCoordinator(world, "b")
        await other.create(request(world))
        await asyncio.sleep(60)  # cheaper than to look at once, and often
        standing = await world.until_ended(SERIES)
        assert standing.state == SUCCEEDED, f"killed after append {number}: {standing.message}"
        assert world.made() == undisturbed.made(), f"killed after append {number}"
        assert world.training.trainings == undisturbed.training.trainings
        await other.drain()


@in_virtual_time
async def test_a_longer_series_reuses_the_rounds_of_a_shorter_one(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator, _ = await carried_out(world, asked(world, 1))
    generated = world.inference.generated
    run = await coordinator.create(asked(world, 2))

    async def ended() -> bool:
        return (await status(coordinator, run.id)).state == SUCCEEDED

    await world.until(ended)
    assert len(world.runs()) == 2
    assert len(world.training.trainings) == 2
    assert world.inference.generated == generated * 3 // 2, "only the second model was evaluated"


@in_virtual_time
async def test_a_model_worse_than_the_previous_one_beyond_noise_stops_the_series(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    world.data[2] = Data(solves=False)
    coordinator, standing = await carried_out(world, asked(world, 3))
    rounds = (await status(coordinator, world.runs()[0].id)).rounds
    assert standing.state == FAILED
    assert standing.message == (
        "stopped after round 2 of 3: its model is worse than round 1's beyond noise: humaneval -100.0 points, p = "
        "0.031 (exact McNemar, 6 problems) (setting stop.worse_p; 0 switches it off). The last good round is 1: "
        f"version v-1, model {rounds[0].tuned.model}"
    )
    assert len(world.runs()) == 2
    await coordinator.rounds.want(world.runs()[0].id, RUNNING, "resumed")
    assert (await world.until_ended(SERIES)).message == standing.message


@in_virtual_time
async def test_a_rule_that_is_off_stops_nothing(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    world.data[2] = Data(solves=False, rows=1, text="add add add add")
    _, standing = await carried_out(world, asked(world, stop=pb.StopRules(worse_p=0, pass_rate=0, diversity=0)))
    assert standing.state == SUCCEEDED, standing.message


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (Data(rows=0), "stopped after round 2 of 3: it kept no rows. The last good round is 1: version v-1"),
        (Data(rows=1), "the pass rate of its responses is 0.125, below 0.5 of round 1's 0.500"),
        (Data(text="add add add add add add add add add"), "distinct-2 of its instructions is "),
    ],
)
def test_data_that_collapse_stop_the_series_before_the_training(tmp_path: Path, data: Data, says: str) -> None:
    @in_virtual_time
    async def test() -> None:
        world = RoundsWorld(tmp_path)
        world.data[2] = data
        _, standing = await carried_out(world, asked(world, 3))
        assert standing.state == FAILED
        assert says in standing.message
        assert len(world.training.trainings) == 1

    test()


@in_virtual_time
async def test_a_first_round_without_rows_says_so(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    world.data[1] = Data(rows=0)
    _, standing = await carried_out(world, asked(world))
    assert standing.message == "stopped after round 1 of 2: it kept no rows; use more seeds"


@in_virtual_time
async def test_a_pause_and_a_cancellation_of_any_round_apply_to_the_current_one(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator = RoundsCoordinator(world, "a")
    first = await coordinator.create(asked(world))

    async def second_began() -> bool:
        return len(world.runs()) == 2

    for wanted in (PAUSED, CANCELLED):
        await world.until(second_began)
        await coordinator.servicer._want_both(first, wanted)
        assert (await world.until_ended(SERIES)).state == wanted
        await asyncio.sleep(30)
        second = world.runs()[1]
        assert (await coordinator.runs.status(second)).state == wanted
        assert len(world.training.trainings) == 1
        await coordinator.servicer._want_both(second, RUNNING)
        await asyncio.sleep(1)
    assert (await world.until_ended(SERIES)).state == SUCCEEDED


@in_virtual_time
async def test_a_cancellation_stops_the_training(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path, at_once=False)
    coordinator = RoundsCoordinator(world, "a")
    first = await coordinator.create(asked(world))

    async def trains() -> bool:
        return bool(world.training.trainings)

    await world.until(trains)
    await asyncio.sleep(5)
    await coordinator.servicer._want_both(first, CANCELLED)
    assert (await world.until_ended(SERIES)).state == CANCELLED
    await asyncio.sleep(5)
    assert world.training.only.state == tr.TRAINING_STATE_CANCELLED


@in_virtual_time
async def test_a_run_that_the_breaker_pauses_pauses_the_series_and_both_resume(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    world.data[2] = Data(pauses="the breaker: most items failed")
    coordinator, standing = await carried_out(world, asked(world))
    assert (standing.state, "most items failed" in standing.message) == (PAUSED, True)
    assert "round 2 of 2: run " in standing.message
    await coordinator.servicer._want_both(world.runs()[1], RUNNING)
    assert (await world.until_ended(SERIES)).state == SUCCEEDED


@in_virtual_time
async def test_a_run_that_fails_fails_the_series_and_is_tried_again_when_it_is_resumed(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    world.data[2] = Data(fails="the sandbox refuses the program")
    coordinator, standing = await carried_out(world, asked(world))
    assert standing.state == FAILED
    assert standing.message.startswith("round 2 of 2: run ")
    assert standing.message.endswith("failed: the sandbox refuses the program")
    del world.data[2]
    await coordinator.servicer._want_both(world.runs()[1], RUNNING)
    assert (await world.until_ended(SERIES)).state == SUCCEEDED


@in_virtual_time
async def test_a_model_that_inference_forgot_is_loaded_again(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator = RoundsCoordinator(world, "a")
    await coordinator.create(asked(world))

    async def second_began() -> bool:
        return len(world.runs()) == 2

    await world.until(second_began)
    world.inference.models.clear()  # it was started again
    assert (await world.until_ended(SERIES)).state == SUCCEEDED


@in_virtual_time
async def test_another_series_takes_over_what_the_first_began(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator = RoundsCoordinator(world, "a")
    first = await coordinator.create(asked(world))
    await asyncio.sleep(2)
    await coordinator.create(asked(world, 3))

    async def ended() -> bool:
        return (await status(coordinator, first.id)).state == SUCCEEDED

    await world.until(ended)
    assert len(world.runs()) == 3
    assert (await status(coordinator, world.runs()[2].id)).config.number == 3


@in_virtual_time
async def test_a_runs_status_and_report_tell_of_its_series(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    world.data[2] = Data(solves=False)
    coordinator, _ = await carried_out(world, asked(world))
    nothing: Any = None
    for run in world.runs():
        report = await coordinator.servicer.GetReport(api.GetReportRequest(run=run.id), nothing)
        assert (report.run.series.state, len(report.run.series.rounds)) == (FAILED, 2)
        assert [each.round.number for each in report.rounds] == [1, 2]
        assert [each.evaluations[0].pass_at_k[1] for each in report.rounds] == [1.0, 0.0]
        assert [each.comparisons[0].difference for each in report.rounds] == [0.5, -1.0]
        assert (await coordinator.servicer.GetRun(api.GetRunRequest(run=run.id), nothing)).run.HasField("loop")


@in_virtual_time
async def test_a_run_is_watched_until_the_next_round_begins(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)
    coordinator = RoundsCoordinator(world, "a")
    first = await coordinator.create(asked(world))
    nothing: Any = None
    seen = [each async for each in coordinator.servicer.WatchRun(api.WatchRunRequest(run=first.id), nothing)]
    assert len(seen[-1].run.series.rounds) == 2
    second = seen[-1].run.series.rounds[-1].run
    seen = [each async for each in coordinator.servicer.WatchRun(api.WatchRunRequest(run=second), nothing)]
    assert seen[-1].run.series.state == SUCCEEDED
    assert {each.run.series.message for each in seen} >= {"round 2 of 2: training and evaluation"}


@in_virtual_time
async def test_a_round_whose_model_is_still_loading_has_not_begun(tmp_path: Path) -> None:
    world = RoundsWorld(tmp_path)

    def forget_models(method: str, given: Message) -> None:
        rounds = [each.run_event.round for each in given.records] if isinstance(given, ds.AppendRequest) else []
        if any(each.number == 2 and not each.HasField("data") for each in rounds):
            world.inference.models.clear()
            world.inference.control.hold("load_model")

    world.dataset.control.before = forget_models
    coordinator = RoundsCoordinator(world, "a")
    first = await coordinator.create(asked(world))
    await asyncio.sleep(120)
    found = await status(coordinator, first.id)
    assert [each.number for each in found.rounds] == [1]
    assert found.message == f"loading model {found.rounds[0].tuned.model}"
    world.inference.control.hold("load_model").set()
    assert (await world.until_ended(SERIES)).state == SUCCEEDED
    assert len((await status(coordinator, first.id)).rounds) == 2


def test_a_series_that_has_not_begun_a_round_is_watched() -> None:
    run = api.RunStatus(id="1", state=SUCCEEDED)
    run.series.state = RUNNING
    assert not has_settled(run)
    run.series.rounds.add(number=1, run="1")
    assert not has_settled(run)
    run.series.rounds.add(number=2, run="2")
    assert has_settled(run)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"number": 0}, ["series.number: is 0; must be from 1 to 100 rounds"]),
        ({"number": -1}, ["series.number: is -1"]),
        ({"number": MAX_ROUNDS + 1}, ["series.number: is 101"]),
        ({"generates": "responses"}, ["series.generates", "everything", "instructions"]),
        ({"train_from": "last"}, ["series.train_from", "base", "previous"]),
        (
            {"stop": pb.StopRules(worse_p=1.5, pass_rate=float("nan"), diversity=-1)},
            ["series.stop.worse_p", "series.stop.pass_rate", "series.stop.diversity", "must be from 0"],
        ),
        ({"loop": None}, ["loop: must be set in a series"]),
        ({"loop": pb.Loop()}, ["loop.evaluations: must be set in a series"]),
        ({"generates": "instructions", "one_model": True}, ["series.generates", "loop.one_model"]),
        ({"stage": "responses"}, ["config.stages[0].model: must not be set in a series", "series.generates"]),
        ({"pipeline": "imported"}, ["series: must not be set: no model writes in pipeline imported"]),
    ],
)
def test_what_cannot_work_is_named(tmp_path: Path, changes: dict[str, Any], says: list[str]) -> None:
    series = {key: changes[key] for key in ("number", "generates", "train_from", "stop") if key in changes}
    request = asked(RoundsWorld(tmp_path), **series)
    request.loop.one_model = changes.get("one_model", False)
    request.config.ClearField("stages")
    request.config.pipeline = changes.get("pipeline", request.config.pipeline)
    if "stage" in changes:
        request.config.stages.add(stage=changes["stage"]).model.model = "teacher"
    loop = changes.get("loop", request.loop)
    with pytest.raises(InvalidArgument) as caught:
        checked(request.series, loop, request.config)
    for part in says:
        assert part in caught.value.message
