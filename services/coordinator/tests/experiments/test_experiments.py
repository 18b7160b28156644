"""An experiment requests what does not exist yet, resumes from its records after any kill, and compares its arms."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound
from codealign.common.health import Readiness
from codealign.coordinator.experiments.cells import run_of
from codealign.coordinator.ground.control import Controllers
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.main import wire
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.config import run_records
from codealign.coordinator.servicer import CoordinatorServicer
from codealign.coordinator.settings import CoordinatorSettings
from fakes import toys
from fakes.experiments import BASE, arm, create, experiment, run, world
from fakes.following import PROBLEMS, Coordinator, World
from fakes.virtual_time import in_virtual_time

EXPERIMENT, RUN, JOB = pb.KIND_EXPERIMENT, pb.KIND_RUN, pb.KIND_EVALUATION_JOB
RUNNING, PAUSED, CANCELLED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_CANCELLED
SUCCEEDED, FAILED = pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED


async def result(coordinator: Coordinator, record: pb.Record) -> api.GetExperimentResponse:
    return await coordinator.experiments.result(record)


def comparable(found: api.GetExperimentResponse) -> bytes:
    """Return what must not depend on interruptions."""
    return found.result.SerializeToString(deterministic=True) + b"".join(
        cell.SerializeToString(deterministic=True) for cell in found.experiment.cells
    )


@in_virtual_time
async def test_every_arm_of_a_seed_is_trained_on_the_same_number_of_rows_and_evaluated(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    record = await create(coordinator, experiment())
    standing = await made.until_ended(EXPERIMENT)
    assert (standing.state, standing.message) == (SUCCEEDED, "arms: 3, seeds: 2")
    found = await result(coordinator, record)
    assert [(cell.arm, cell.seed, cell.state) for cell in found.experiment.cells] == [
        (name, seed, SUCCEEDED) for seed in (0, 1) for name in ("base", "passes", "failures")
    ]
    for seed in (0, 1):
        _, *trained = [cell for cell in found.experiment.cells if cell.seed == seed]
        assert {cell.rows for cell in trained} == {min(cell.rows_available for cell in trained)} != {0}
        for cell in trained:
            spec = made.training.trainings[cell.training].spec
            assert (spec.seed, spec.dataset) == (seed, cell.version)
            assert spec.rows == (cell.rows if cell.rows < cell.rows_available else 0)
    (measure,) = found.result.measures
    assert (measure.benchmark, measure.problems, measure.problems_total) == ("humaneval", PROBLEMS, PROBLEMS)
    assert {score.arm: score.mean for score in measure.scores} == {"base": 0.5, "passes": 1.0, "failures": 1.0}
    assert {score.arm: list(score.seeds) for score in measure.scores}["passes"] == [0, 1]
    (decision,) = found.result.decisions
    assert decision.difference.mean == 0.5
    assert decision.outcome == "undecided", "three problems of six decide nothing"
    assert len(made.inference.models) == 1, "the tuned models are unloaded"


@in_virtual_time
async def test_a_cell_has_succeeded_only_when_its_model_is_evaluated(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    record = await create(coordinator, experiment(seeds=[0]))
    states: list[list[int]] = []
    while (status := await coordinator.experiments.status(record)).state == RUNNING:
        for cell in status.cells:
            assert cell.state != SUCCEEDED or cell.evaluations, cell
        states.append([cell.state for cell in status.cells])
        await asyncio.sleep(0.2)
    assert [SUCCEEDED, RUNNING, 0] in states, "the second arm's data is complete only after the first's"
    assert [SUCCEEDED, SUCCEEDED, RUNNING] in states


@in_virtual_time
async def test_what_exists_is_reused_and_the_same_experiment_does_nothing_again(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    first = await create(coordinator, experiment())
    await made.until_ended(EXPERIMENT)
    before = made.inference.generated, made.training.control.calls["submit"], len(made.dataset.of_kind(RUN))
    again, existed = await coordinator.experiments.create(await coordinator.experiments.prepare(experiment()))
    assert (again, existed) == (made.dataset.records[first.id], True)
    await asyncio.sleep(30)
    other = await create(coordinator, experiment(name="another", claims=[]))
    assert other.id != first.id

    async def ended() -> bool:
        return (await coordinator.experiments.status(other)).state == SUCCEEDED

    await made.until(ended)
    after = made.inference.generated, made.training.control.calls["submit"], len(made.dataset.of_kind(RUN))
    assert after == before
    assert (await result(coordinator, other)).result.measures == (await result(coordinator, first)).result.measures


@in_virtual_time
async def test_runs_that_differ_in_the_strategy_alone_share_their_completions(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    await create(coordinator, experiment(arm("passes", "random-pass"), claims=[], seeds=[0]))
    await made.until_ended(EXPERIMENT)
    alone = len(made.dataset.of_kind(pb.KIND_COMPLETION))
    made = world(tmp_path)
    coordinator = Coordinator(made, "b")
    await create(coordinator, experiment(claims=[], seeds=[0]))
    await made.until_ended(EXPERIMENT)
    assert len(made.dataset.of_kind(pb.KIND_COMPLETION)) == alone


def _undisturbed(tmp_path: Path, given: pb.Experiment) -> tuple[bytes, Counter[str]]:
    found: list[tuple[bytes, Counter[str]]] = []

    @in_virtual_time
    async def alone() -> None:
        made = world(tmp_path)
        coordinator = Coordinator(made, "a")
        record = await create(coordinator, given)
        await made.until_ended(EXPERIMENT)
        calls: Counter[str] = Counter()
        for service in ("dataset", "inference", "training"):
            control = getattr(made, service).control
            calls.update({f"{service}.{method}": count for method, count in control.calls.items()})
        found.append((comparable(await result(coordinator, record)), calls))
        await coordinator.drain()

    alone()
    return found[0]


SMALL = experiment(BASE, arm("passes", "random-pass"), arm("failures", "failures-only"), seeds=[3])


@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("dataset.append", 5),
        ("dataset.scan", 41),
        ("dataset.count", 5),
        ("dataset.acquire_lease", 2),
        ("inference.list_models", 2),
        ("inference.load_model", 1),
        ("training.submit", 1),
        ("training.get", 1),
    ],
)
def test_killed_at_any_call_it_goes_on_elsewhere_with_the_same_result(tmp_path: Path, method: str, step: int) -> None:
    expected, calls = _undisturbed(tmp_path, SMALL)
    assert calls[method]
    service, name = method.split(".")

    @in_virtual_time
    async def killed_at(number: int) -> None:
        made = world(tmp_path)
        killed = Coordinator(made, "a")
        control = getattr(made, service).control

        def after(called: str, request: Any) -> None:
            if called == name and control.calls[name] == number:
                killed.kill()

        control.after = after
        asking = asyncio.create_task(create(killed, SMALL))
        await asyncio.sleep(10)
        asking.cancel()
        other = Coordinator(made, "b")
        record = await create(other, SMALL)
        assert (await made.until_ended(EXPERIMENT)).state == SUCCEEDED, f"killed at {method} {number}"
        assert comparable(await result(other, record)) == expected, f"killed at {method} {number}"
        assert made.training.control.calls["submit"] <= 3
        await other.drain()

    for number in range(1, calls[method] + 1, step):
        killed_at(number)


@in_virtual_time
async def test_an_arm_takes_another_arms_run_as_its_seeds(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    made_from = run()
    made_from.ClearField("seeds")
    follows = pb.ExperimentArm(name="follows", run=made_from, model="base", instructions_of="passes")
    record = await coordinator.experiments.prepare(experiment(arm("passes", "random-pass"), follows, claims=[]))
    found = record.experiment
    first = run_records(run_of(found, found.arms[0], 1))[1]
    assert run_of(found, found.arms[1], 1).seeds.collection == first.id
    assert found.arms[1].run.seeds.collection == ""


@in_virtual_time
async def test_an_arms_own_number_of_rows_applies_and_the_others_share_theirs(tmp_path: Path) -> None:
    made = world(tmp_path, 8)
    coordinator = Coordinator(made, "a")
    arms = [arm("all", "random-pass"), arm("two", "random-pass", rows=2), arm("one", "random-pass", rows=1)]
    record = await create(coordinator, experiment(*arms, claims=[], seeds=[0]))
    await made.until_ended(EXPERIMENT)
    whole, two, one = (await result(coordinator, record)).experiment.cells
    assert whole.rows == whole.rows_available > 2
    assert (two.rows, one.rows) == (2, 1)
    assert whole.run == two.run == one.run
    assert len({whole.training, two.training, one.training}) == 3


@in_virtual_time
async def test_a_cell_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    made = world(tmp_path, at_once=False)
    coordinator = Coordinator(made, "a")
    record = await create(coordinator, experiment(seeds=[0]))
    finished: set[str] = set()

    async def ended() -> bool:
        for training in made.training.trainings.values():
            if training.id not in finished and training.state == tr.TRAINING_STATE_RUNNING:
                made.training.finish(training.id, "" if finished else "the disk is full")
                finished.add(training.id)
        return (await coordinator.experiments.status(record)).state != RUNNING

    await made.until(ended)
    found = await result(coordinator, record)
    assert found.experiment.state == FAILED
    assert "1 of the experiment's cells have no result" in found.experiment.message
    assert "arm passes, seed 0: training and evaluation (" in found.experiment.message
    assert "failed: the disk is full" in found.experiment.message
    assert [cell.state for cell in found.experiment.cells] == [SUCCEEDED, FAILED, SUCCEEDED]
    assert [score.arm for score in found.result.measures[0].scores] == ["base", "failures"]
    assert found.result.decisions[0].outcome == "undecided"
    assert "no results of the same seed" in found.result.decisions[0].sentence
    made.training.at_once = True
    await coordinator.experiments.want(record, RUNNING, "resumed")
    assert (await made.until_ended(EXPERIMENT)).state == SUCCEEDED


@in_virtual_time
async def test_a_run_that_fails_fails_its_arm_alone(tmp_path: Path) -> None:
    made = world(tmp_path)
    made.dataset.put(*toys.seeds(0, "bad one"), collection="bad")
    coordinator = Coordinator(made, "a")
    empty = pb.ExperimentArm(name="empty", model="base", run=run(seeds=pb.SeedSelection(collection="bad")))
    record = await create(coordinator, experiment(BASE, empty, arm("passes", "random-pass"), seeds=[0]))
    standing = await made.until_ended(EXPERIMENT)
    assert standing.state == FAILED
    assert "arm empty, seed 0: run " in standing.message
    assert "failed: none of the seeds of collection 'bad' meets the rules" in standing.message
    cells = (await result(coordinator, record)).experiment.cells
    assert [cell.state for cell in cells] == [SUCCEEDED, FAILED, SUCCEEDED]
    assert cells[2].rows == cells[2].rows_available


@in_virtual_time
async def test_arms_that_cannot_begin_are_named_and_the_others_have_results(tmp_path: Path) -> None:
    made = world(tmp_path)
    made.dataset.put(*toys.seeds(0, "bad one"), collection="bad")
    coordinator = Coordinator(made, "a")
    away = pb.ModelChoice(model="away", revision="rev-away")
    models = [*experiment().models, pb.ExperimentModel(model=away, source="/models/away")]
    empty = pb.ExperimentArm(name="empty", model="base", run=run(seeds=pb.SeedSelection(collection="bad")))
    follows = pb.ExperimentArm(name="follows", model="base", run=run(), instructions_of="empty")
    follows.run.ClearField("seeds")
    unloadable = arm("unloadable", "random-pass")
    unloadable.run.model.CopyFrom(away)
    made.inference.control.before = _refuse_to_load_away
    arms = [BASE, empty, follows, unloadable, arm("passes", "random-pass"), arm("rows", "random-pass", rows=4)]
    record = await create(coordinator, experiment(*arms, seeds=[0], models=models))
    standing = await made.until_ended(EXPERIMENT)
    assert standing.state == FAILED
    assert "arm follows, seed 0: arm empty has no instructions" in standing.message
    assert "arm unloadable, seed 0: not enough memory" in standing.message
    found = await result(coordinator, record)
    states = {cell.arm: cell.state for cell in found.experiment.cells}
    assert states == {
        "base": SUCCEEDED,
        "empty": FAILED,
        "follows": FAILED,
        "unloadable": pb.RUN_STATE_UNSPECIFIED,
        "passes": SUCCEEDED,
        "rows": SUCCEEDED,
    }
    assert [score.arm for score in found.result.measures[0].scores] == ["base", "passes", "rows"]


def _refuse_to_load_away(method: str, request: Any) -> None:
    if method == "load_model" and request.name == "away":
        raise FailedPrecondition("not enough memory")


@in_virtual_time
async def test_an_arm_whose_run_kept_too_few_rows_fails(tmp_path: Path) -> None:
    made = world(tmp_path)
    made.dataset.put(*toys.seeds(0, "bad one"), collection=toys.SEEDS)
    coordinator = Coordinator(made, "a")
    record = await create(coordinator, experiment(arm("all", "random-pass", rows=5), claims=[], seeds=[0]))
    standing = await made.until_ended(EXPERIMENT)
    (cell,) = (await result(coordinator, record)).experiment.cells
    assert standing.state == cell.state == FAILED
    assert f"the run kept {cell.rows_available} rows, and the arm asks for 5" in cell.message
    assert cell.message in standing.message


@in_virtual_time
async def test_a_pause_stops_what_is_in_progress_and_a_resume_goes_on(tmp_path: Path) -> None:
    made = world(tmp_path)
    made.inference.seconds = 2.0
    coordinator = Coordinator(made, "a", seeds_in_flight=1)
    record = await create(coordinator, experiment(seeds=[0]))

    async def evaluates() -> bool:
        return bool(made.dataset.of_kind(pb.KIND_EVALUATION_RESULT))

    await made.until(evaluates)
    await coordinator.experiments.want(record, PAUSED, "paused by a person")
    assert (await made.until_ended(EXPERIMENT)).state == PAUSED
    await asyncio.sleep(30)
    before = made.inference.generated
    await asyncio.sleep(60)
    assert made.inference.generated == before
    assert not made.dataset.of_kind(RUN)
    made.inference.seconds = 0.0
    await coordinator.experiments.want(record, RUNNING, "resumed")
    assert (await made.until_ended(EXPERIMENT)).state == SUCCEEDED


@in_virtual_time
async def test_a_pause_reaches_the_run_in_progress(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    writing = made.inference.writes

    async def slowly(request: Any, sample: Any) -> Any:
        await asyncio.sleep(5)
        return await writing(request, sample)  # type: ignore[misc]

    made.inference.writes = slowly
    follows = pb.ExperimentArm(name="follows", model="base", run=run(), instructions_of="passes")
    follows.run.ClearField("seeds")
    record = await create(coordinator, experiment(arm("passes", "random-pass"), follows, claims=[], seeds=[0]))
    await made.until(lambda: _has(made, RUN))
    await asyncio.sleep(2)
    await coordinator.experiments.want(record, PAUSED, "paused by a person")
    assert (await made.until_ended(EXPERIMENT)).state == PAUSED
    assert (await made.until_ended(RUN)).state == PAUSED
    cells = (await result(coordinator, record)).experiment.cells
    assert [cell.state for cell in cells] == [PAUSED, PAUSED], "an arm that waits for a paused run has not failed"
    await coordinator.experiments.want(record, RUNNING, "resumed")
    assert (await made.until_ended(EXPERIMENT)).state == SUCCEEDED


@in_virtual_time
async def test_a_cancellation_stops_the_training(tmp_path: Path) -> None:
    made = world(tmp_path, at_once=False)
    coordinator = Coordinator(made, "a")
    record = await create(coordinator, experiment(seeds=[0]))

    async def trains() -> bool:
        return bool(made.training.trainings)

    await made.until(trains)
    await asyncio.sleep(5)
    await coordinator.experiments.want(record, CANCELLED, "cancelled by a person")
    assert (await made.until_ended(EXPERIMENT)).state == CANCELLED
    await asyncio.sleep(10)
    assert made.training.only.state == tr.TRAINING_STATE_CANCELLED


async def _has(made: World, kind: pb.Kind.ValueType) -> bool:
    return bool(made.dataset.of_kind(kind))


@in_virtual_time
async def test_a_machine_for_one_model_loads_the_base_model_again_for_the_next_seed(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    await create(coordinator, experiment(one_model=True))
    assert (await made.until_ended(EXPERIMENT)).state == SUCCEEDED
    assert len(made.inference.models) == 1


@pytest.mark.parametrize("service", ["training", "inference", "dataset", "sandbox"])
def test_a_service_that_is_away_is_waited_for(tmp_path: Path, service: str) -> None:
    @in_virtual_time
    async def test() -> None:
        made = world(tmp_path)
        coordinator = Coordinator(made, "a")
        record = await create(coordinator, experiment(seeds=[0]))
        await made.until(lambda: _has(made, JOB))
        getattr(made, service).control.go_away()
        await asyncio.sleep(120)
        getattr(made, service).control.come_back()
        assert (await made.until_ended(EXPERIMENT)).state == SUCCEEDED
        assert len((await result(coordinator, record)).result.measures[0].scores) == 3

    test()


WRONG = experiment(
    BASE,
    pb.ExperimentArm(name="a", model="bas", run=run("random-passs", pipeline="one-lin")),
    pb.ExperimentArm(name="a", model="base", run=run(seeds=pb.SeedSelection(collection="nothing")), rows=-1),
    pb.ExperimentArm(name="b", model="base", run=run(), instructions_of="c", training=tr.TrainingSpec(rows=3, seed=1)),
    pb.ExperimentArm(
        name="c", model="base", run=run(), rows=1000, training=tr.TrainingSpec(learning_rate=-1, workers=3)
    ),
    pb.ExperimentArm(name="d", model="base", rows=3),
    seeds=[1, 1],
    evaluations=[
        pb.EvaluationSettings(benchmarks=["humaneval"], seed=3),
        pb.EvaluationSettings(benchmarks=["nanoeval"]),
    ],
    claims=[pb.ExperimentClaim(better="base", than="base", benchmark="mbpp")],
)


@in_virtual_time
async def test_everything_that_is_impossible_is_named_before_anything_starts(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    with pytest.raises(InvalidArgument) as caught:
        await coordinator.experiments.prepare(WRONG)
    found = dict(caught.value.violations)
    assert {path.removeprefix("config.") for path in found} == {
        "seeds[1]",
        "evaluations[0].seed",
        "evaluations[1].benchmarks",
        *("arms[1].model", "arms[1].run.pipeline", "arms[1].run.selection.strategy"),
        *("arms[2].name", "arms[2].rows", "arms[2].run"),
        *("arms[3].instructions_of", "arms[3].run.seeds.collection", "arms[3].training.rows", "arms[3].training.seed"),
        *("arms[4].rows", "arms[4].training.learning_rate", "arms[4].training.batch_size", "arms[5].rows"),
        *("claims[0].statement", "claims[0].than", "claims[0].benchmark"),
    }
    assert found["config.arms[1].model"] == "unknown model 'bas'; did you mean 'base'? valid: base"
    assert "did you mean 'one-line'?" in found["config.arms[1].run.pipeline"]
    assert found["config.arms[4].rows"] == "is 1,000; the run's seeds give at most 4 rows"
    assert "is -1; must be above 0" in found["config.arms[4].training.learning_rate"]
    assert "nanoeval: no such file in" in found["config.evaluations[1].benchmarks"]
    assert not made.dataset.of_kind(EXPERIMENT)


@in_virtual_time
async def test_it_is_refused_where_nothing_can_be_trained(tmp_path: Path) -> None:
    alone = Coordinator(world(tmp_path), "a", training_address="")
    with pytest.raises(FailedPrecondition, match="no training service is configured"):
        await alone.experiments.prepare(experiment())
    assert await alone.experiments.prepare(experiment(BASE, claims=[])), "nothing is trained"
    with pytest.raises(FailedPrecondition, match="read-only"):
        await Coordinator(world(tmp_path), "a", reads_only=True).experiments.prepare(experiment())


@in_virtual_time
async def test_it_is_found_by_its_name_and_its_first_digits(tmp_path: Path) -> None:
    made = world(tmp_path)
    coordinator = Coordinator(made, "a")
    record = await create(coordinator, experiment(seeds=[0]))
    for text in ("ablation", record.id, record.id[:8]):
        assert (await coordinator.experiments.find(text)).id == record.id
    with pytest.raises(NotFound, match="no experiment matches 'other'"):
        await coordinator.experiments.find("other")
    (listed,) = await coordinator.experiments.list()
    assert (listed.id, listed.state) == (record.id, RUNNING)
    await made.until_ended(EXPERIMENT)


def service(made: World) -> tuple[Controllers, CoordinatorServicer, Readiness]:
    settings = CoordinatorSettings(
        dataset_address="-",
        inference_address="-",
        sandbox_address="-",
        training_address="-",
        evaluation_data=made.benchmarks,
    )
    services = Services(made.dataset, made.inference, made.sandbox, made.training)
    readiness = Readiness()
    return *wire(settings, services, BenchmarkTexts(), readiness), readiness


@in_virtual_time
async def test_an_experiment_is_created_without_reading_the_others(tmp_path: Path) -> None:
    made, context = world(tmp_path), cast("Any", None)
    _, servicer, _ = service(made)
    scanned: list[int] = []

    def before(method: str, request: Any) -> None:
        if method == "scan":
            scanned.append(request.kind)

    made.dataset.control.before = before
    request = api.CreateExperimentRequest(config=experiment(seeds=[0]))
    for existed in (False, True):
        created = await servicer.CreateExperiment(request, context)
        assert created.existed == existed
        assert created.experiment.created_at == made.dataset.records[created.experiment.id].provenance.created_at
    assert EXPERIMENT not in scanned


@in_virtual_time
async def test_the_service_creates_watches_and_tells_of_an_experiment(tmp_path: Path) -> None:
    made, context = world(tmp_path), cast("Any", None)
    controllers, servicer, readiness = service(made)
    request = api.CreateExperimentRequest(config=experiment(seeds=[0]), validate_only=True)
    checked = (await servicer.CreateExperiment(request, context)).experiment
    assert checked.config.arms[1].run.stages
    assert not made.dataset.of_kind(EXPERIMENT)
    request.validate_only = False
    async with controllers.working(readiness.draining):
        created = await servicer.CreateExperiment(request, context)
        assert (created.experiment.id, created.experiment.state, created.existed) == (checked.id, RUNNING, False)
        paused = await servicer.PauseExperiment(api.PauseExperimentRequest(experiment="ablation"), context)
        assert paused.experiment.wanted == PAUSED
        watch = api.WatchExperimentRequest(experiment=checked.id)
        *_, last = [each.experiment async for each in servicer.WatchExperiment(watch, context)]
        assert last.state == PAUSED
        assert "codealign experiment resume" in last.message
        await servicer.ResumeExperiment(api.ResumeExperimentRequest(experiment=checked.id), context)
        *_, last = [each.experiment async for each in servicer.WatchExperiment(watch, context)]
        assert (last.state, {cell.state for cell in last.cells}) == (SUCCEEDED, {SUCCEEDED})
        got = await servicer.GetExperiment(api.GetExperimentRequest(experiment=checked.id), context)
        assert got.experiment == last
        assert len(got.result.measures[0].scores) == 3
        (listed,) = (await servicer.ListExperiments(api.ListExperimentsRequest(), context)).experiments
        assert (listed.id, listed.state) == (checked.id, SUCCEEDED)
        with pytest.raises(FailedPrecondition, match="has ended"):
            await servicer.CancelExperiment(api.CancelExperimentRequest(experiment=checked.id), context)
        with pytest.raises(InvalidArgument, match="interval_seconds"):
            await anext(
                servicer.WatchExperiment(
                    api.WatchExperimentRequest(experiment=checked.id, interval_seconds=99), context
                )
            )
