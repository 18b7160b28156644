"""Controller of experiments: for every seed, each arm's run, then its training and evaluations.

A cell's data is a Run, its training and evaluations are a Loop, and an arm without data is an EvaluationJob. The
controller requests those that do not exist yet, one at a time and in a fixed order, and waits. Their state is in the
store, so a controller that takes over an experiment repeats nothing. A cell that fails is named in the result, and the
others go on. See `ground.control`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import CodeAlignError, FailedPrecondition, NotFound
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.evaluation.request import checked, job_record
from codealign.coordinator.experiments import cells, turns
from codealign.coordinator.experiments.history import NO_INSTRUCTIONS, failures, rows_available
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment, Outcome
from codealign.coordinator.ground.faults import TRANSIENT, RunFailed
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.loops import history
from codealign.coordinator.loops.controller import NO_ROWS
from codealign.coordinator.loops.models import POLL_SECONDS, Models
from codealign.coordinator.loops.operations import Loops
from codealign.coordinator.loops.request import tuned_name
from codealign.coordinator.runs.config import run_records
from codealign.coordinator.runs.operations import Runs

_RESUME = "the experiment"


class ExperimentWorkload:
    """Execution of Experiments; implements `control.Workload` and `control.Stoppable`.

    Args:
        services: Clients of the other services; the store and inference are used.
        runs: Used to request runs.
        loops: Used to request loops.
        evaluations: Used to request evaluations.
        poll_seconds: Seconds between polls.
    """

    kind = pb.KIND_EXPERIMENT
    prefix = "experiment"
    repeatable = False

    def __init__(
        self,
        services: Services,
        runs: Runs,
        loops: Loops,
        evaluations: Evaluations,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._services, self._runs, self._loops, self._evaluations = services, runs, loops, evaluations
        self._poll_seconds = poll_seconds
        self._models = Models(services.inference, evaluations, poll_seconds)

    async def work(self, assignment: Assignment) -> Outcome:
        """Carry out the remaining cells; see `control.Workload.work`.

        Raises:
            RunFailed: Cells failed; the message names each of them.
        """
        await turns.take(self._services.dataset, assignment, lambda: self._models.pause(assignment))
        experiment = assignment.subject.experiment
        failed: dict[tuple[str, int], str] = {}
        for seed in experiment.seeds:
            await self._seed(assignment, seed, failed)
        if failed:
            raise RunFailed(failures(failed))
        return Outcome(f"arms: {len(experiment.arms)}, seeds: {len(experiment.seeds)}")

    async def _seed(self, assignment: Assignment, seed: int, failed: dict[tuple[str, int], str]) -> None:
        """Carry out the cells of one seed, adding those that fail to `failed`."""
        experiment = assignment.subject.experiment
        runs: dict[str, pb.Record] = {}
        available: dict[str, int] = {}
        for arm in experiment.arms:
            with _named(failed, arm.name, seed):
                if not cells.trained(arm):
                    await self._evaluate(assignment, arm, seed)
                    continue
                if arm.instructions_of and arm.instructions_of not in available:
                    raise RunFailed(NO_INSTRUCTIONS.format(arm.instructions_of))
                runs[arm.name] = await self._run(assignment, arm, seed)
                available[arm.name] = await rows_available(self._services.dataset, runs[arm.name].id)
        rows = cells.rows_of(experiment, available)
        for arm in experiment.arms:
            if arm.name in rows:
                with _named(failed, arm.name, seed):
                    await self._train(assignment, arm, seed, runs[arm.name], rows[arm.name], available[arm.name])

    async def _evaluate(self, assignment: Assignment, arm: pb.ExperimentArm, seed: int) -> None:
        """Evaluate an arm that is not trained."""
        experiment = assignment.subject.experiment
        source = cells.located(experiment, arm.model).source
        for settings in cells.base_evaluations(experiment, arm, seed):
            await self._models.evaluate(assignment, settings, source, one_model=experiment.one_model, resume=_RESUME)

    async def _run(self, assignment: Assignment, arm: pb.ExperimentArm, seed: int) -> pb.Record:
        """Wait for the run that makes an arm's data, requesting it if necessary, and return its record."""
        experiment = assignment.subject.experiment
        run = cells.run_of(experiment, arm, seed)
        record = run_records(run)[1]
        while True:
            standing = await requests.standing(self._services.dataset, record.id)
            if standing.settled(repeatable=False):
                if standing.state == pb.RUN_STATE_SUCCEEDED:
                    if standing.event is None or not standing.event.run_event.version:
                        raise RunFailed(NO_ROWS)
                    return record
                _must_be_asked(assignment, standing, f"run {record.id[:12]}")
                await self._models.load(assignment, cells.models_of(experiment, run), one_model=experiment.one_model)
                assignment.gate()
                await self._runs.create(run)
            assignment.say(f"arm {arm.name}, seed {seed}: writing data")
            await self._models.pause(assignment)

    async def _train(
        self, assignment: Assignment, arm: pb.ExperimentArm, seed: int, run: pb.Record, rows: int, available: int
    ) -> None:
        """Wait for an arm's training and evaluations, requesting them if necessary."""
        experiment = assignment.subject.experiment
        if wrong := cells.too_many(rows, available):
            raise RunFailed(wrong)
        loop = cells.loop_of(experiment, arm, seed, run, rows, available)
        requested = False
        while True:
            standing = await requests.standing(self._services.dataset, loop.id)
            if standing.settled(repeatable=False):
                if standing.state == pb.RUN_STATE_SUCCEEDED:
                    if requested and not experiment.one_model:
                        await self._unload(loop, run.run)
                    return
                _must_be_asked(assignment, standing, f"training and evaluation ({loop.id[:12]})")
                assignment.gate()
                await self._loops.start(run, loop)
                requested = True
            assignment.say(f"arm {arm.name}, seed {seed}: training on {rows:,} rows and evaluating")
            await self._models.pause(assignment)

    async def _unload(self, loop: pb.Record, run: pb.Run) -> None:
        """Unload a tuned model that was evaluated. The next arm has another one."""
        training = await history.submitted(self._services.dataset, loop.id)
        request = inf.UnloadModelRequest(name=tuned_name(loop.loop, run, training))
        with contextlib.suppress(NotFound, FailedPrecondition):
            await self._services.inference.unload_model(request)

    async def stop(self, assignment: Assignment) -> None:
        """Stop the cells in progress, and wait until they have: the next experiment may unload their models.

        Called before a pause or cancellation is recorded. See `LoopWorkload.stop`.
        """
        request = assignment.standing.request
        assert request is not None
        wanted = request.run_request.wanted
        reason = f"with experiment {assignment.subject.id[:12]}: {request.run_request.reason}"
        experiment = assignment.subject.experiment
        assignment.say("waiting until what is in progress has stopped")
        asked: list[tuple[str, bool]] = []
        for seed, arm in cells.cells(experiment):
            with contextlib.suppress(FailedPrecondition):  # it ended meanwhile
                if cells.trained(arm):
                    run = run_records(cells.run_of(experiment, arm, seed))[1]
                    asked += [(subject, False) for subject in await self._stop_run(run, wanted, reason)]
                    continue
                for settings in cells.base_evaluations(experiment, arm, seed):
                    job = job_record(checked(settings))
                    standing = await self._evaluations.standing(job.id)
                    if standing.wanted == pb.RUN_STATE_RUNNING and not standing.settled(repeatable=True):
                        await self._evaluations.want(job.id, wanted, reason)
                    asked.append((job.id, True))
        for subject, repeatable in asked:
            await requests.obeyed(self._services.dataset, subject, wanted, self._poll_seconds, repeatable=repeatable)

    async def _stop_run(self, run: pb.Record, wanted: pb.RunState.ValueType, reason: str) -> list[str]:
        """Stop a run, or the loop that follows it, and return the ids of both."""
        standing = await requests.standing(self._services.dataset, run.id)
        if standing.request is None:
            return []
        if not standing.settled(repeatable=False):
            await self._runs.want(run, wanted, reason)
        await self._loops.want(run.id, wanted, reason)
        return [run.id, *(loop.id for loop, _ in await history.loops_of(self._services.dataset, run.id))]


@contextlib.contextmanager
def _named(failed: dict[tuple[str, int], str], arm: str, seed: int) -> Iterator[None]:
    """Record a failure of one cell, so that the others go on. Outages end the work, which is then tried again."""
    try:
        yield
    except TRANSIENT:
        raise
    except CodeAlignError as error:
        failed[arm, seed] = error.message
    except RunFailed as error:
        failed[arm, seed] = str(error)


def _must_be_asked(assignment: Assignment, standing: Standing, what: str) -> None:
    """Check that something that has ended without success may be requested.

    Each request for the experiment tries everything once: what was requested since has failed.

    Raises:
        RunFailed: It was requested since the experiment was.
    """
    since = assignment.standing.request
    if standing.request is None or since is None:
        return
    if standing.request.provenance.created_at.ToNanoseconds() < since.provenance.created_at.ToNanoseconds():
        return
    state = pb.RunState.Name(standing.state).removeprefix("RUN_STATE_").lower()
    was = "failed" if standing.state == pb.RUN_STATE_FAILED else f"was {state}"
    raise RunFailed(f"{what} {was}: {standing.message}")
