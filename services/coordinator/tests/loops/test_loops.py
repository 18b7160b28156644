"""A loop resumes from its records after any process is killed, and repeats no step."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common import records
from codealign.common.errors import CodeAlignError, FailedPrecondition, InvalidArgument, NotFound
from codealign.coordinator.loops.operations import has_settled
from fakes.following import PROBLEMS, Coordinator, World
from fakes.virtual_time import in_virtual_time

LOOP, RESULT = pb.KIND_LOOP, pb.KIND_EVALUATION_RESULT
RUNNING, PAUSED, CANCELLED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_CANCELLED
SUCCEEDED, FAILED = pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED


def loop(*limits: int, **fields: Any) -> pb.Loop:
    """Return a loop with an evaluation for each limit; without limits, with one evaluation of all problems."""
    evaluations = [pb.EvaluationSettings(benchmarks=["humaneval"], limit=limit) for limit in limits or (0,)]
    given = {"training": tr.TrainingSpec(epochs=2), "evaluations": evaluations, **fields}
    return pb.Loop(**given)


async def status(coordinator: Coordinator, run: pb.Record) -> api.LoopStatus:
    found = await coordinator.loops.status(run.id)
    assert found is not None
    return found


def steps(found: api.LoopStatus) -> list[tuple[str, str]]:
    return [(step.name, pb.RunState.Name(step.state).removeprefix("RUN_STATE_")) for step in found.steps]


@in_virtual_time
async def test_a_loop_evaluates_trains_and_evaluates(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop())
    standing = await world.until_ended(LOOP)
    training = world.training.only
    assert (standing.state, standing.message) == (SUCCEEDED, f"tuned on v-1 by training {training.id[:12]}")
    spec = training.spec
    assert (spec.model, spec.model_revision, spec.dataset, spec.epochs) == ("/models/base", "rev-base", "v-1", 2)
    tuned = world.inference.models[f"base-{training.id[:8]}"]
    assert (tuned.source, tuned.revision) == (training.artifact_url, f"rev-{training.id}")
    passed = [found.evaluation_result.passed for found in world.dataset.of_kind(RESULT)]
    assert (len(passed), sum(passed)) == (2 * PROBLEMS, PROBLEMS // 2 + PROBLEMS)
    found = await status(coordinator, run)
    assert steps(found) == [
        ("evaluate the base model", "SUCCEEDED"),
        ("train", "SUCCEEDED"),
        ("evaluate the tuned model", "SUCCEEDED"),
    ]
    assert found.steps[1].id == training.id


@in_virtual_time
async def test_the_model_that_a_run_of_imports_names_is_evaluated_and_tuned_on_its_rows(tmp_path: Path) -> None:
    world = World(tmp_path)
    source = records.complete(pb.Record(kind=pb.KIND_IMPORT, import_source=pb.Import(name="theirs.jsonl")))
    task = records.complete(pb.Record(kind=pb.KIND_INSTRUCTION, instruction=pb.Instruction(text="Add two to x.")))
    answer = pb.Record(kind=pb.KIND_RESPONSE, parents=[task.id])
    answer.response.answer, answer.response.code = "Like this.", "def f(x):\n    return x + 2\n"
    answer.response.tests, answer.response.imported_from = "assert f(1) == 3", source.id
    world.dataset.put(source, task, records.complete(answer), collection="theirs")
    coordinator = Coordinator(world, "a")
    given = pb.Run(pipeline="imported", seeds=pb.SeedSelection(collection="theirs"))
    given.model.model = "base"
    run, _ = await coordinator.runs.create((await coordinator.runs.prepare(given))[0])
    await coordinator.loops.wanted(run, loop())
    standing = await world.until_ended(LOOP)
    assert standing.state == SUCCEEDED, standing.message
    spec = world.training.only.spec
    assert (spec.model, spec.model_revision) == ("/models/base", "rev-base")
    (published,) = world.dataset.published
    assert published.collection == run.id
    jobs = [each.evaluation_job.settings for each in world.dataset.of_kind(pb.KIND_EVALUATION_JOB)]
    names = {each.prompt_style: each.model.model for each in jobs}
    assert names == {"base": "base", "tuned": f"base-{world.training.only.id[:8]}"}


@in_virtual_time
async def test_killed_after_any_append_it_goes_on_elsewhere_and_trains_once(tmp_path: Path) -> None:
    undisturbed = World(tmp_path)
    alone = Coordinator(undisturbed, "a")
    await alone.loops.wanted(undisturbed.run(), loop(2))
    await undisturbed.until_ended(LOOP)
    await alone.drain()
    appends = undisturbed.dataset.control.calls["append"]
    assert appends > 12
    for number in range(1, appends + 1):
        world = World(tmp_path)
        run, killed = world.run(), Coordinator(world, "a")
        world.kill_at_append(killed, number)
        asking = asyncio.create_task(killed.loops.wanted(run, loop(2)))
        await asyncio.sleep(10)
        asking.cancel()
        other = Coordinator(world, "b")
        await other.loops.wanted(run, loop(2))
        assert (await world.until_ended(LOOP)).state == SUCCEEDED, f"killed after append {number}"
        assert world.results() == undisturbed.results()
        assert world.training.trainings == undisturbed.training.trainings
        assert world.training.control.calls["submit"] <= 2
        assert world.inference.models.keys() == undisturbed.inference.models.keys()
        await other.drain()


@in_virtual_time
async def test_it_waits_for_the_runs_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(RUNNING, ""), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop())
    await asyncio.sleep(30)
    found = await status(coordinator, run)
    assert (found.state, found.message) == (RUNNING, "waiting for the run")
    assert {step.state for step in found.steps} == {pb.RUN_STATE_UNSPECIFIED}
    world.ran(run, PAUSED)
    await asyncio.sleep(5)
    assert (await status(coordinator, run)).message == "waiting for the run, which is paused"
    world.ran(run, SUCCEEDED, "v-2")
    assert (await world.until_ended(LOOP)).state == SUCCEEDED
    assert world.training.only.spec.dataset == "v-2"


@in_virtual_time
async def test_a_run_without_rows_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(SUCCEEDED, ""), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop())
    standing = await world.until_ended(LOOP)
    assert (standing.state, "no rows to train on; use more seeds" in standing.message) == (FAILED, True)
    assert not world.training.trainings
    assert not world.dataset.of_kind(RESULT)


@in_virtual_time
async def test_a_loop_without_evaluations_ends_with_the_training(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop(evaluations=[]))
    assert (await world.until_ended(LOOP)).state == SUCCEEDED
    assert steps(await status(coordinator, run)) == [("train", "SUCCEEDED")]
    assert list(world.inference.models) == ["base"]


@in_virtual_time
async def test_a_small_machine_holds_one_model_at_a_time(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop(one_model=True))
    assert (await world.until_ended(LOOP)).state == SUCCEEDED
    assert list(world.inference.models) == [f"base-{world.training.only.id[:8]}"]


@in_virtual_time
async def test_every_evaluation_is_a_step(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop(2, 4))
    assert (await world.until_ended(LOOP)).state == SUCCEEDED
    names = [name for name, state in steps(await status(coordinator, run)) if state == "SUCCEEDED"]
    assert names == [
        *("evaluate the base model (1 of 2)", "evaluate the base model (2 of 2)", "train"),
        *("evaluate the tuned model (1 of 2)", "evaluate the tuned model (2 of 2)"),
    ]


@in_virtual_time
async def test_a_pause_lets_the_training_go_on_and_begins_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, at_once=False)
    run, coordinator = world.run(), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop())
    await world.until(lambda: _trains(world))
    assert steps(await status(coordinator, run))[1] == ("train", "RUNNING")
    assert await coordinator.loops.want(run.id, PAUSED, "paused by a person")
    assert (await world.until_ended(LOOP)).state == PAUSED
    assert world.training.only.state == tr.TRAINING_STATE_RUNNING
    world.training.finish(world.training.only.id)
    await asyncio.sleep(60)
    assert len(world.dataset.of_kind(RESULT)) == PROBLEMS
    assert await coordinator.loops.want(run.id, RUNNING, "resumed")
    assert (await world.until_ended(LOOP)).state == SUCCEEDED
    assert len(world.training.trainings) == 1


@in_virtual_time
async def test_a_pause_stops_the_evaluation(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 5.0
    run, coordinator = world.run(), Coordinator(world, "a", seeds_in_flight=1)
    await coordinator.loops.wanted(run, loop())
    await world.until(lambda: _has_results(world))
    await coordinator.loops.want(run.id, PAUSED, "paused by a person")
    await world.until_ended(LOOP)
    before = len(world.dataset.of_kind(RESULT))
    await asyncio.sleep(60)
    assert len(world.dataset.of_kind(RESULT)) == before < PROBLEMS
    assert steps(await status(coordinator, run))[0] == ("evaluate the base model", "PAUSED")
    await coordinator.loops.want(run.id, RUNNING, "resumed")
    assert (await world.until_ended(LOOP)).state == SUCCEEDED
    assert world.inference.generated == 2 * PROBLEMS


async def _trains(world: World) -> bool:
    return bool(world.training.trainings) and bool((await world.standing(LOOP)).message == "training")


async def _has_results(world: World) -> bool:
    return bool(world.dataset.of_kind(RESULT))


@in_virtual_time
async def test_a_cancellation_stops_the_training_and_the_same_loop_goes_on_with_it(tmp_path: Path) -> None:
    world = World(tmp_path, at_once=False)
    run, coordinator = world.run(), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop())
    await world.until(lambda: _trains(world))
    world.training.control.go_away()
    await coordinator.loops.want(run.id, CANCELLED, "cancelled by a person")
    await asyncio.sleep(30)
    assert (await world.standing(LOOP)).state == RUNNING, "the training is not stopped yet"
    world.training.control.come_back()
    assert (await world.until_ended(LOOP)).state == CANCELLED
    assert world.training.only.state == tr.TRAINING_STATE_CANCELLED
    await coordinator.loops.wanted(run, loop())
    await world.until(lambda: _trains(world))
    world.training.finish(world.training.only.id)
    assert (await world.until_ended(LOOP)).state == SUCCEEDED


@in_virtual_time
async def test_a_cancellation_while_the_training_is_submitted_stops_it(tmp_path: Path) -> None:
    world = World(tmp_path, at_once=False)
    run, coordinator = world.run(), Coordinator(world, "a")
    submitting = world.training.control.hold("submit")
    await coordinator.loops.wanted(run, loop())
    await asyncio.sleep(30)
    await coordinator.loops.want(run.id, CANCELLED, "cancelled by a person")
    await asyncio.sleep(5)
    submitting.set()
    assert (await world.until_ended(LOOP)).state == CANCELLED
    assert world.training.only.state == tr.TRAINING_STATE_CANCELLED


@in_virtual_time
async def test_a_training_that_failed_is_tried_again_when_a_person_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, at_once=False)
    run, coordinator = world.run(), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop())
    await world.until(lambda: _trains(world))
    world.training.finish(world.training.only.id, "the disk is full")
    standing = await world.until_ended(LOOP)
    assert (standing.state, standing.message) == (
        FAILED,
        f"training {world.training.only.id[:12]} failed: the disk is full",
    )
    await asyncio.sleep(60)
    assert world.training.control.calls["submit"] == 1
    await coordinator.loops.want(run.id, RUNNING, "resumed")
    await world.until(lambda: _trains(world))
    world.training.finish(world.training.only.id)
    assert (await world.until_ended(LOOP)).state == SUCCEEDED


@pytest.mark.parametrize("service", ["training", "inference", "dataset", "sandbox"])
def test_a_service_that_is_away_is_waited_for(tmp_path: Path, service: str) -> None:
    @in_virtual_time
    async def test() -> None:
        world = World(tmp_path)
        run, coordinator = world.run(RUNNING, ""), Coordinator(world, "a")
        await coordinator.loops.wanted(run, loop())
        await asyncio.sleep(5)
        getattr(world, service).control.go_away()
        world.ran(run, SUCCEEDED, "v-1")
        await asyncio.sleep(300)
        getattr(world, service).control.come_back()
        assert (await world.until_ended(LOOP)).state == SUCCEEDED
        assert len(world.training.trainings) == 1

    test()


@in_virtual_time
async def test_a_tuned_model_that_inference_forgot_is_loaded_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(), Coordinator(world, "a", seeds_in_flight=1)
    world.inference.seconds = 5.0
    await coordinator.loops.wanted(run, loop())

    async def tuned_is_at_work() -> bool:
        return len(world.dataset.of_kind(RESULT)) > PROBLEMS

    await world.until(tuned_is_at_work)
    world.inference.models.pop(f"base-{world.training.only.id[:8]}")  # it was started again
    assert (await world.until_ended(LOOP)).state == SUCCEEDED
    assert len(world.dataset.of_kind(RESULT)) == 2 * PROBLEMS


@in_virtual_time
async def test_an_evaluation_that_fails_fails_the_loop_with_its_reason(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(RUNNING, ""), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop())
    (world.benchmarks / "HumanEval.jsonl").write_text("")
    world.ran(run, SUCCEEDED, "v-1")
    standing = await world.until_ended(LOOP)
    assert standing.state == FAILED
    assert standing.message.startswith("the evaluation of the base model (")
    assert "HumanEval.jsonl: is empty; download it again" in standing.message


@in_virtual_time
async def test_another_loop_of_the_run_takes_over_what_the_first_began(tmp_path: Path) -> None:
    world = World(tmp_path, at_once=False)
    run, coordinator = world.run(), Coordinator(world, "a")
    await coordinator.loops.wanted(run, loop(evaluations=[]))
    await world.until(lambda: _trains(world))
    await coordinator.loops.wanted(run, loop())
    await asyncio.sleep(30)
    assert world.training.only.state == tr.TRAINING_STATE_RUNNING
    world.training.finish(world.training.only.id)

    async def ended() -> bool:
        return (await status(coordinator, run)).state == SUCCEEDED

    await world.until(ended)
    assert len((await status(coordinator, run)).steps) == 3


@in_virtual_time
async def test_a_run_without_a_loop_has_none_to_tell_of_or_to_stop(tmp_path: Path) -> None:
    world = World(tmp_path)
    run, coordinator = world.run(), Coordinator(world, "a")
    assert await coordinator.loops.status(run.id) is None
    assert not await coordinator.loops.want(run.id, PAUSED, "paused by a person")


WRONG = pb.Loop(training=tr.TrainingSpec(model="m", dataset="v"))
WRONG.evaluations.add(benchmarks=["humaneval", "x"], prompt_style="tuned")
WRONG.evaluations.add(benchmarks=["humaneval"], model=pb.ModelChoice(model="m"), limit=-1)


@pytest.mark.parametrize(
    ("given", "changes", "error", "says"),
    [
        (
            WRONG,
            {},
            InvalidArgument,
            [
                *("loop.training.model", "loop.training.dataset", "loop.evaluations[0].prompt_style"),
                *("loop.evaluations[0].benchmarks[1]", "loop.evaluations[1].model", "loop.evaluations[1].limit"),
            ],
        ),
        (
            loop(training=tr.TrainingSpec(epochs=2000, optimizer="sgd", lora=tr.Lora(rank=-1))),
            {},
            InvalidArgument,
            [
                "loop.training.epochs: is 2000; must be above 0, at most 1000 (0: 4)",
                "loop.training.optimizer: is 'sgd'; must be one of adafactor, adamw",
                "loop.training.lora.rank: is -1; must be 1 to 4096 (0: 16)",
            ],
        ),
        (loop(1, 1), {}, InvalidArgument, ["loop.evaluations[1]: duplicate evaluation"]),
        (
            loop(),
            {"training_address": ""},
            FailedPrecondition,
            ["no training service is configured: set CODEALIGN_COORDINATOR_TRAINING_ADDRESS"],
        ),
        (
            loop(evaluations=[pb.EvaluationSettings(benchmarks=["nanoeval"])]),
            {},
            NotFound,
            ["nanoeval: no such file in"],
        ),
    ],
)
def test_what_cannot_work_is_said_before_the_run(
    tmp_path: Path, given: pb.Loop, changes: dict[str, Any], error: type[CodeAlignError], says: list[str]
) -> None:
    @in_virtual_time
    async def test() -> None:
        with pytest.raises(error) as caught:
            await Coordinator(World(tmp_path), "a", **changes).loops.check(given)
        for part in says:
            assert part in caught.value.message

    test()


def test_watching_ends_when_the_run_and_its_loop_have_settled() -> None:
    run = api.RunStatus(state=SUCCEEDED)
    assert has_settled(run)
    run.loop.state = RUNNING
    assert not has_settled(run)
    run.state = FAILED
    assert has_settled(run), "the loop waits for a run that nobody works on"
