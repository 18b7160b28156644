"""Stored state of an experiment's cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.evaluation.request import checked, job_record
from codealign.coordinator.experiments import cells
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.loops import history
from codealign.coordinator.loops.controller import NO_ROWS
from codealign.coordinator.loops.request import tuned_evaluations
from codealign.coordinator.runs.config import run_records

SUCCEEDED = pb.RUN_STATE_SUCCEEDED
NO_INSTRUCTIONS = "arm {} has no instructions"
_ENDED = (pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED, pb.RUN_STATE_PAUSED)


@dataclass
class Cell:
    """An arm of one seed."""

    arm: pb.ExperimentArm
    status: api.ExperimentCell
    evaluations: list[pb.EvaluationSettings] = field(default_factory=list)
    """Evaluations of the arm's model, in the experiment's order, once its revision is known."""


async def rows_available(dataset: Dataset, run_id: str) -> int:
    """Return the number of rows that a run kept."""
    return await requests.count(dataset, run_id, pb.KIND_EXAMPLE)


async def read(dataset: Dataset, experiment: pb.Experiment, *, settled: bool) -> list[Cell]:
    """Return every cell, by seed and then in the order of the arms, with one try per call.

    Args:
        dataset: The store.
        experiment: The experiment.
        settled: Whether the experiment does nothing more. Data that does not exist then will not be waited for.
    """
    found: list[Cell] = []
    for seed in experiment.seeds:
        found += await _seed(dataset, experiment, seed, settled=settled)
    return found


async def _seed(dataset: Dataset, experiment: pb.Experiment, seed: int, *, settled: bool) -> list[Cell]:
    made = {arm.name: Cell(arm, api.ExperimentCell(arm=arm.name, seed=seed)) for arm in experiment.arms}
    runs: dict[str, pb.Record] = {}
    for name, cell in made.items():
        if not cells.trained(cell.arm):
            cell.evaluations = cells.base_evaluations(experiment, cell.arm, seed)
            await _evaluations(dataset, cell)
            continue
        source = cell.arm.instructions_of
        if source and made[source].status.state in _ENDED:
            cell.status.state, cell.status.message = made[source].status.state, NO_INSTRUCTIONS.format(source)
            continue
        runs[name] = run_records(cells.run_of(experiment, cell.arm, seed))[1]
        await _data(dataset, cell.status, runs[name])
    trained = [cell for cell in made.values() if cells.trained(cell.arm)]
    unknown = any(cell.status.state in (pb.RUN_STATE_UNSPECIFIED, pb.RUN_STATE_RUNNING) for cell in trained)
    whole = [cell for cell in trained if cell.status.state == SUCCEEDED]
    rows = cells.rows_of(experiment, {cell.arm.name: cell.status.rows_available for cell in whole})
    for cell in whole:
        if unknown and not settled:  # the number of rows is not known yet
            _wait(cell.status)
            continue
        cell.status.rows = rows[cell.arm.name]
        if wrong := cells.too_many(cell.status.rows, cell.status.rows_available):
            cell.status.state, cell.status.message = pb.RUN_STATE_FAILED, wrong
        else:
            await _loop(dataset, experiment, cell, runs[cell.arm.name])
    return list(made.values())


async def _data(dataset: Dataset, status: api.ExperimentCell, run: pb.Record) -> None:
    """Fill in what is known of a cell's run. SUCCEEDED: its data is complete."""
    standing = await requests.standing(dataset, run.id)
    if standing.request is None:
        return
    status.run = run.id
    _take(status, standing, repeatable=False)
    if status.state == pb.RUN_STATE_RUNNING:
        status.message = "writing data"
    if status.state == SUCCEEDED:
        assert standing.event is not None
        status.version = standing.event.run_event.version
        status.rows_available = await rows_available(dataset, run.id) if status.version else 0
        if not status.rows_available:
            status.state, status.message = pb.RUN_STATE_FAILED, NO_ROWS


def _wait(status: api.ExperimentCell) -> None:
    """Mark a cell whose training has not been requested yet."""
    status.state, status.message = pb.RUN_STATE_UNSPECIFIED, "the data is complete"


async def _loop(dataset: Dataset, experiment: pb.Experiment, cell: Cell, run: pb.Record) -> None:
    """Fill in what is known of the training on a cell's data, and of the evaluations after it."""
    status = cell.status
    loop = cells.loop_of(experiment, cell.arm, status.seed, run, status.rows, status.rows_available)
    standing = await requests.standing(dataset, loop.id)
    if standing.request is None:
        _wait(status)
        return
    _take(status, standing, repeatable=False)
    status.training = await history.submitted(dataset, loop.id)
    if not status.training:
        return
    checkpoints = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_CHECKPOINT, stage_config_id=status.training))
    if checkpoints:
        revision = checkpoints[0].checkpoint.revision
        for each in tuned_evaluations(loop.loop, run.run, status.training, revision):
            cell.evaluations.append(each)
            status.evaluations.append(job_record(checked(each)).id)


async def _evaluations(dataset: Dataset, cell: Cell) -> None:
    """Fill in the state of a cell that is only evaluated: that of its first evaluation that has not succeeded."""
    told = api.ExperimentCell(state=SUCCEEDED)
    for settings in cell.evaluations:
        job = job_record(checked(settings))
        cell.status.evaluations.append(job.id)
        standing = await requests.standing(dataset, job.id)
        if told.state == SUCCEEDED:
            _take(told, standing, repeatable=True)
    cell.status.state, cell.status.message = told.state, told.message


def _take(status: api.ExperimentCell, standing: Standing, *, repeatable: bool) -> None:
    if standing.request is None:
        status.state = pb.RUN_STATE_UNSPECIFIED
        return
    settled = standing.settled(repeatable=repeatable)
    status.state = standing.state if settled else pb.RUN_STATE_RUNNING
    status.message = standing.message if settled else ""


def failures(found: Mapping[tuple[str, int], str]) -> str:
    """Return a message that names every cell that failed."""
    told = [f"arm {arm}, seed {seed}: {message}" for (arm, seed), message in found.items()]
    return f"{len(found)} of the experiment's cells have no result; resume it to try again. {'; '.join(told)}"
