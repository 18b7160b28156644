"""Controller of series: carries out each round's run and loop, measures the round, and stops a series that degrades.

A round's Run and Loop are functions of the series and the rounds before, and their state is in the store. A controller
that takes over a series therefore finds everything that exists and repeats nothing. See `ground.control`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common.errors import FailedPrecondition, NotFound
from codealign.common.logs import get_logger
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.evaluation.prompts import BASE, TUNED
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment, Outcome, PauseWanted
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.loops import history as loop_history
from codealign.coordinator.loops.models import POLL_SECONDS, Located, Models
from codealign.coordinator.loops.operations import Loops
from codealign.coordinator.loops.request import evaluations_of, tuned_name
from codealign.coordinator.rounds import history, scores, stopping
from codealign.coordinator.rounds.measures import measure
from codealign.coordinator.rounds.request import generators, loop_of_round, run_of_round
from codealign.coordinator.runs.operations import Runs

log = get_logger(__name__)
REPLACED = "another series with the same first round was asked for"
"""Reason of a cancellation that stops neither run nor loop, since the new series may use them."""


@dataclass(frozen=True)
class _Round:
    """A round that is being worked on."""

    assignment: Assignment
    state: pb.Round
    """As far as it has come; also recorded in the series' events."""
    first: pb.Record
    """Run of the first round."""
    run: pb.Record
    loop: pb.Record
    base: Located
    """The model of the first round's run."""
    previous: Located | None
    """The model tuned in the previous round; None in the first."""

    @property
    def series(self) -> pb.RoundSeries:
        """The series."""
        return self.assignment.subject.round_series

    def say(self, message: str) -> None:
        """Tell users what the round is doing."""
        self.assignment.say(f"round {self.state.number} of {self.series.number}: {message}")

    async def record(self) -> None:
        """Record how far the round has come."""
        event = pb.RunEvent(state=pb.RUN_STATE_RUNNING, message=self.assignment.message)
        event.round.CopyFrom(self.state)
        await self.assignment.record(event)


class SeriesWorkload:
    """Execution of series; implements `control.Workload` and `control.Stoppable`.

    Args:
        services: Clients of the other services; the sandbox is not used.
        runs: Used to start and stop the rounds' runs.
        loops: Used to start and stop the rounds' loops.
        evaluations: Used to repeat evaluations whose runners have changed since.
        poll_seconds: Seconds between polls.
    """

    kind = pb.KIND_SERIES
    prefix = "series"
    repeatable = False

    def __init__(
        self,
        services: Services,
        runs: Runs,
        loops: Loops,
        evaluations: Evaluations,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._services, self._runs, self._loops = services, runs, loops
        self._models = Models(services.inference, evaluations, poll_seconds)

    async def work(self, assignment: Assignment) -> Outcome:
        """Carry out the remaining rounds; see `control.Workload.work`."""
        subject = assignment.subject
        series, first_id = subject.round_series, subject.parents[0]
        first = (await assignment.store.get([first_id]))[first_id]
        base = Located(first.run.model, series.loop.training.model)
        known = await history.rounds_of(self._services.dataset, subject.id)
        rounds: list[pb.Round] = []
        previous: Located | None = None
        for number in range(1, series.number + 1):
            if number < len(known):  # the next round has begun, so this one is complete and passed the stop rules
                rounds.append(known[number - 1])
            else:
                run = run_of_round(subject, first, number, previous)
                loop = loop_of_round(subject, first, run, previous)
                has_begun = number == len(known)
                state = known[number - 1] if has_begun else pb.Round(number=number, run=run.id, loop=loop.id)
                work = _Round(assignment, state, first, run, loop, base, previous)
                if not has_begun:
                    work.say("generating data")
                    await work.record()
                await self._release(work, rounds[:-1])
                await self._carry_out(work, rounds)
                rounds.append(work.state)
            previous = await self._located(assignment, rounds[-1])
        last = rounds[-1]
        return Outcome(f"{len(rounds)} rounds; the last model is {last.tuned.model}, tuned on {last.data.version}")

    async def stop(self, assignment: Assignment) -> None:
        """Pause or cancel the current round's run and loop. Called before a pause or cancellation is recorded."""
        request = assignment.standing.request
        assert request is not None
        wanted, reason = request.run_request.wanted, request.run_request.reason
        if reason == REPLACED:
            return
        dataset = self._services.dataset
        rounds = await history.rounds_of(dataset, assignment.subject.id)
        run_id = rounds[-1].run if rounds else assignment.subject.parents[0]
        if rounds and not (await requests.standing(dataset, rounds[-1].loop)).settled(repeatable=False):
            await self._loops.want(run_id, wanted, reason)
        found = (await dataset.get(ds.GetRequest(ids=[run_id]))).records
        if found and not (await requests.standing(dataset, run_id)).settled(repeatable=False):
            with contextlib.suppress(FailedPrecondition):  # it has just ended
                await self._runs.want(found[0], wanted, reason)

    async def _carry_out(self, work: _Round, before: Sequence[pb.Round]) -> None:
        """Do what is left of a round."""
        state, series = work.state, work.series
        if not state.HasField("data"):
            version = await self._generate(work)
            work.say("measuring the data")
            async with RunStore(self._services.dataset, work.run.id, waiting=work.assignment.waiting) as store:
                state.data.CopyFrom(await measure(store, work.run.run, version))
            await work.record()
        first = before[0] if before else state
        if reason := stopping.data_reason(series.stop, state.number, state.data, first.data):
            raise RunFailed(_stopped(work, before, reason))
        if not state.checkpoint:
            await self._tune(work)
            await work.record()
        if reason := stopping.score_reason(series.stop, state.number, await self._compare(work, before)):
            raise RunFailed(_stopped(work, before, reason))

    async def _generate(self, work: _Round) -> str:
        """Carry out a round's run and return its version. Loads the models that it needs, as often as necessary."""
        assignment, run_id, asked, linked = work.assignment, work.run.id, False, False
        needed = generators(work.series, work.base, work.previous)
        while True:
            standing = await requests.standing(self._services.dataset, run_id)
            if standing.request is not None and not linked:
                await assignment.store.append(work.loop)  # its parents tell that the run belongs to the series
                linked = True
            if standing.state == pb.RUN_STATE_SUCCEEDED:
                return standing.event.run_event.version if standing.event else ""
            if standing.settled(repeatable=False):
                were_loaded = await self._models.load(assignment, needed, one_model=work.series.loop.one_model)
                if asked and were_loaded:
                    raise _ended(work, f"run {run_id[:12]}", standing)
                assignment.gate()
                await self._runs.create(work.run.run)
                asked = True
                continue
            work.say("generating data")
            await self._models.pause(assignment)

    async def _tune(self, work: _Round) -> None:
        """Carry out a round's loop, and note the tuned model."""
        assignment, loop, asked = work.assignment, work.loop, False
        while (standing := await requests.standing(self._services.dataset, loop.id)).state != pb.RUN_STATE_SUCCEEDED:
            if standing.settled(repeatable=False):
                if asked:
                    raise _ended(work, f"the loop of run {work.run.id[:12]}", standing)
                assignment.gate()
                await self._loops.start(work.run, loop)
                asked = True
            work.say("training and evaluation")
            await self._models.pause(assignment)
        training_id = await loop_history.submitted(self._services.dataset, loop.id)
        training = (await self._services.training.get(tr.GetTrainingRequest(id=training_id))).training
        made = await loop_history.checkpoint(self._services.dataset, training)
        if made is None:
            raise RunFailed(f"the store has no checkpoint of training {training_id[:12]}")
        work.state.checkpoint = training.checkpoint_id
        name = tuned_name(loop.loop, work.run.run, training_id)
        work.state.tuned.CopyFrom(pb.ModelChoice(model=name, revision=made.revision))

    async def _compare(self, work: _Round, before: Sequence[pb.Round]) -> Sequence[api.Comparison]:
        """Compare a round's model with the previous round's, or with the base model in the first round.

        Both must have been judged by the same runners: if these have changed since, the evaluation is repeated.
        """
        series, assignment = work.series, work.assignment
        tuned = await self._located(assignment, work.state)
        for model, style in ((work.previous or work.base, TUNED if work.previous else BASE), (tuned, TUNED)):
            for settings in evaluations_of(series.loop.evaluations, model.choice, style):
                await self._models.evaluate(
                    assignment, settings, model.source, one_model=series.loop.one_model, resume="the series"
                )
        async with RunStore(self._services.dataset, waiting=assignment.waiting) as store:
            found = await scores.reports(store, series, work.first.run.model, [*before[-1:], work.state])
        return found[-1].comparisons

    async def _located(self, assignment: Assignment, state: pb.Round) -> Located:
        """Return the tuned model of a complete round."""
        found = (await assignment.store.get([state.checkpoint])).get(state.checkpoint)
        if found is None:
            raise RunFailed(f"the store has no checkpoint {state.checkpoint} of round {state.number}")
        return Located(state.tuned, found.checkpoint.artifact_url)

    async def _release(self, work: _Round, old: Sequence[pb.Round]) -> None:
        """Unload the models of rounds before the previous one, which nothing needs any more."""
        revisions = {each.tuned.revision for each in old}
        if not revisions:
            return
        for model in (await self._services.inference.list_models(inf.ListModelsRequest())).models:
            if model.revision in revisions:
                with contextlib.suppress(NotFound):
                    await self._services.inference.unload_model(inf.UnloadModelRequest(name=model.name))
                    log.info("model_unloaded", model=model.name, series=work.assignment.subject.id)


def _ended(work: _Round, what: str, standing: Standing) -> Exception:
    """Return the error for a run or loop of the round that ended without success although it was requested."""
    text = f"round {work.state.number} of {work.series.number}: {what}"
    if standing.state == pb.RUN_STATE_PAUSED:
        return PauseWanted(f"{text} was paused: {standing.message}")
    if standing.state == pb.RUN_STATE_CANCELLED:
        return RunFailed(f"{text} was cancelled: {standing.message}; resume the series to continue it")
    return RunFailed(f"{text} failed: {standing.message}")


def _stopped(work: _Round, before: Sequence[pb.Round], reason: str) -> str:
    """Return the message of a series that a stop rule ended."""
    text = f"stopped after round {work.state.number} of {work.series.number}: {reason}"
    if not before:
        return text
    good = before[-1]
    return f"{text}. The last good round is {good.number}: version {good.data.version}, model {good.tuned.model}"
