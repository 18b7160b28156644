"""What an experiment consists of: for every seed, each arm's run, loop and evaluations. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.coordinator.evaluation.prompts import BASE
from codealign.coordinator.loops import request
from codealign.coordinator.loops.models import Located
from codealign.coordinator.runs.config import run_records

MAX_RUN_NAME = 200


def trained(arm: pb.ExperimentArm) -> bool:
    """Return whether an arm has data to train on, rather than being the untrained model."""
    return arm.HasField("run")


def arm_named(experiment: pb.Experiment, name: str) -> pb.ExperimentArm:
    """Return an arm by its name."""
    return next(arm for arm in experiment.arms if arm.name == name)


def located(experiment: pb.Experiment, name: str) -> Located:
    """Return one of the experiment's models by its name."""
    found = next(each for each in experiment.models if each.model.model == name)
    return Located(found.model, found.source)


def run_of(experiment: pb.Experiment, arm: pb.ExperimentArm, seed: int) -> pb.Run:
    """Return the run that makes an arm's data."""
    run = pb.Run()
    run.CopyFrom(arm.run)
    run.name = f"{experiment.name}: {arm.name}, seed {seed}"[:MAX_RUN_NAME]
    run.seed = seed
    if arm.instructions_of:
        source = run_of(experiment, arm_named(experiment, arm.instructions_of), seed)
        run.seeds.collection = run_records(source)[1].id
    return run


def models_of(experiment: pb.Experiment, run: pb.Run) -> list[Located]:
    """Return the models that a run uses."""
    names = [run.model.model, *(stage.model.model for stage in run.stages if stage.model.model)]
    return [located(experiment, name) for name in dict.fromkeys(names)]


def evaluations_of(
    experiment: pb.Experiment, seed: int, model: pb.ModelChoice, style: str
) -> list[pb.EvaluationSettings]:
    """Return the evaluations of a model for a seed. Greedy evaluations are the same for every seed."""
    found = request.evaluations_of(experiment.evaluations, model, style)
    for settings in found:
        settings.seed = seed if settings.temperature > 0 else 0
    return found


def base_evaluations(experiment: pb.Experiment, arm: pb.ExperimentArm, seed: int) -> list[pb.EvaluationSettings]:
    """Return the evaluations of an arm that is not trained."""
    return evaluations_of(experiment, seed, located(experiment, arm.model).choice, BASE)


def loop_of(
    experiment: pb.Experiment, arm: pb.ExperimentArm, seed: int, run: pb.Record, rows: int, available: int
) -> pb.Record:
    """Return the loop that trains and evaluates an arm's model.

    Args:
        experiment: The experiment.
        arm: An arm with a run.
        seed: The seed.
        run: Record of the arm's run.
        rows: Rows to train on.
        available: Rows of the run's version.
    """
    model = located(experiment, arm.model)
    loop = pb.Loop(training=arm.training, one_model=experiment.one_model)
    loop.training.seed = seed
    loop.training.rows = rows if rows < available else 0  # a training on all rows is that of an ordinary loop
    for settings in evaluations_of(experiment, seed, pb.ModelChoice(), ""):
        settings.ClearField("model")
        loop.evaluations.append(settings)
    if model.choice != run.run.model:
        loop.model.CopyFrom(model.choice)
    return request.loop_record(run, loop, model.source)


def rows_of(experiment: pb.Experiment, available: Mapping[str, int]) -> dict[str, int]:
    """Return the number of rows that each arm of a seed trains on.

    Arms that leave it open share the smallest number of rows among them. An arm's own number applies as it is.

    Args:
        experiment: The experiment.
        available: Rows of each arm's version. Arms without a version are left out of it, and of the result.
    """
    arms = [arm for arm in experiment.arms if arm.name in available]
    shared = min((available[arm.name] for arm in arms if not arm.rows), default=0)
    return {arm.name: arm.rows or shared for arm in arms}


def too_many(rows: int, available: int) -> str:
    """Return what is wrong with an arm's own number of rows, or ""."""
    if rows <= available:
        return ""
    return f"the run kept {available:,} rows, and the arm asks for {rows:,}: use more seeds, or fewer rows"


def cells(experiment: pb.Experiment) -> Iterator[tuple[int, pb.ExperimentArm]]:
    """Yield every cell in the order in which cells are listed."""
    for seed in experiment.seeds:
        for arm in experiment.arms:
            yield seed, arm


def experiment_record(experiment: pb.Experiment) -> pb.Record:
    """Return the Experiment record. Equal experiments are the same record."""
    return records.complete(pb.Record(kind=pb.KIND_EXPERIMENT, experiment=experiment))
