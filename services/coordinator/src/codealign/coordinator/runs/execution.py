"""Verdicts: looked up in the store first, requested from the sandbox if missing.

A verdict on a program is reused by every run with the same execution: profile, limits and runner image. Exceptions are
verdicts that depend on the machine as much as on the program: they are children of the run as well as of the item, so
that the run has its record and every other run executes the program itself.
"""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records, traces
from codealign.common.errors import CodeAlignError, InvalidArgument
from codealign.coordinator.ground.calls import execute, trim
from codealign.coordinator.ground.faults import Faulty, RunStopped
from codealign.coordinator.ground.ports import Sandbox
from codealign.coordinator.ground.tally import PASSED, verdict_name
from codealign.coordinator.ground.windows import Window
from codealign.coordinator.pipelines import INTERNAL_ERROR
from codealign.coordinator.pipelines.stage import Execution as ExecutionStage
from codealign.coordinator.pipelines.stage import Item
from codealign.coordinator.runs.breaker import UNDECIDED
from codealign.coordinator.runs.context import Context

OF_THE_MACHINE = frozenset({sb.VERDICT_TIMED_OUT, sb.VERDICT_OUT_OF_MEMORY})
"""Verdicts that another machine, or the same machine at another time, may not give."""


class Execution:
    """The execution stage of a run.

    Args:
        context: The run.
        stage: The stage.
        sandbox: Executes the programs.
        window: Limits concurrent programs at the sandbox.
    """

    def __init__(self, context: Context, stage: ExecutionStage, sandbox: Sandbox, window: Window) -> None:
        self._context, self._stage, self._sandbox, self._window = context, stage, sandbox, window
        self._config_id = context.configs[stage.name].id
        self._wanted = context.run.execution
        self._tally = context.progress[stage.name]
        self._runners: set[str] = set()
        self._undecided: list[str] = []
        """Items without a verdict for which nothing is recorded yet."""
        self._choosing = False
        self._answers = False
        """Whether the sandbox has judged a program."""

    async def judge(self, item: Item, *, fresh: bool) -> pb.Record | None:
        """Return the verdict on an item, or None if the infrastructure kept failing or the item is rejected.

        Args:
            item: An item of the previous stage.
            fresh: Whether it was created now, so that it cannot have a verdict yet.

        Raises:
            RunFailed: The sandbox does not isolate.
            RunStopped: The runners changed since the run was created, or the gate stopped the work between two tries.
        """
        with traces.span(self._stage.name, {"record": item.record.id}):
            return await self._judge(item, fresh=fresh)

    async def _judge(self, item: Item, *, fresh: bool) -> pb.Record | None:
        there = None if fresh else await self._find(item.record.id)
        if there is not None and there.kind == pb.KIND_REJECTION:
            self._tally.finish(there.rejection.reason, fresh=False)
            return None
        if there is not None:
            self._count(there, fresh=False)
            return there
        try:
            program = self._stage.program(item)
        except Exception as error:  # whatever a stage's code raises
            await self._reject(item, error)
            return None
        async with self._window:
            with self._tally.working():
                result = await self._execute(item.record.id, program)
        if result is None:
            self._tally.finish(UNDECIDED)
            self._context.breaker.saw(self._stage.name, UNDECIDED)
            self._undecided.append(item.record.id)
            if self._choosing:
                await self.settle()
            return None
        await self._check_runner(result)
        trim(result)
        record = pb.Record(
            kind=pb.KIND_VERDICT,
            parents=self._parents(item.record.id, of_the_run=_is_of_the_machine(result)),
            stage_config_id=self._config_id,
            verdict=pb.VerdictBody(result=result),
            provenance=pb.Provenance(seconds=result.queue_seconds + result.wall_seconds),
        )
        try:
            kept = await self._context.store.append(record)
        except InvalidArgument as error:  # too large for the store
            await self._reject(item, error)
            return None
        self._count(kept, fresh=kept is record)
        return kept

    async def run(self, program: sb.Program, limits: sb.Limits, record_id: str) -> sb.Result | None:
        """Execute a program that is not an item's own, in the same way; return None if the infrastructure kept failing.

        Args:
            program: The program.
            limits: Limits that are set; the run's apply to the others.
            record_id: Identifies the request.

        Raises:
            RunFailed: The sandbox does not isolate.
            RunStopped: The runners changed since the run was created, or the gate stopped the work.
        """
        self._context.gate()
        async with self._window:
            with self._tally.working():
                result = await self._execute(record_id, program, limits)
        if result is not None:
            await self._check_runner(result)
        return result

    async def settle(self) -> None:
        """Record items without a verdict as undecided for this run, because row selection starts now."""
        self._choosing = True
        held, self._undecided = self._undecided, []
        rejection = pb.Rejection(
            rejected_kind=self._stage.makes, reason=UNDECIDED, detail="the sandbox kept failing on it"
        )
        await self._context.store.append_all(
            pb.Record(
                kind=pb.KIND_REJECTION,
                parents=[item_id, self._context.record.id],
                stage_config_id=self._config_id,
                rejection=rejection,
            )
            for item_id in held
        )

    def _parents(self, item_id: str, *, of_the_run: bool) -> list[str]:
        return [item_id, self._context.record.id] if of_the_run else [item_id]

    async def _find(self, item_id: str) -> pb.Record | None:
        """Return this run's verdict, a shared verdict, or a Rejection in their place, and add it to this run."""
        own, shared, undecided = (
            records.derive_id(kind, self._parents(item_id, of_the_run=of_the_run), stage_config_id=self._config_id)
            for kind, of_the_run in (
                (pb.KIND_VERDICT, True),
                (pb.KIND_VERDICT, False),
                (pb.KIND_REJECTION, True),
            )
        )
        # Undecided first: rows may have been selected since, even if another run has a verdict on the program by now.
        wanted = (undecided, own, shared)
        found = await self._context.store.get(wanted)
        chosen = next((record_id for record_id in wanted if record_id in found), "")
        return (await self._context.store.join([chosen])).get(chosen) if chosen else None

    async def _execute(self, item_id: str, program: sb.Program, limits: sb.Limits | None = None) -> sb.Result | None:
        wanted, store = self._wanted, self._context.store
        request = sb.ExecuteRequest(
            program=program, profile=wanted.profile, limits=wanted.limits, runs=wanted.runs, request_id=item_id
        )
        if limits is not None:
            request.limits.MergeFrom(limits)
        # Existing programs are judged as in-flight work, so the gate is checked between two tries only.
        try:
            result = await execute(self._sandbox, request, self._tally, self._context.gate, self._window, store.waiting)
        except Faulty:
            if not self._answers:
                raise
            return None  # it judges others, so the fault is in this program
        self._answers |= result is not None
        return result

    async def _check_runner(self, result: sb.Result) -> None:
        """Check that the runner's image and Python are those that the run's verdicts are based on.

        Raises:
            RunStopped: Another image would mix two kinds of verdicts: the breaker pauses the run and names both.
        """
        wanted = self._wanted
        if result.verdict == sb.VERDICT_REFUSED:
            return
        if wanted.image_digest not in ("", result.image_digest):
            raise self._pause("image", result.runner, result.image_digest, wanted.image_digest)
        if not wanted.python_version or result.runner in self._runners:
            return
        try:
            answer = await self._sandbox.get_runner(sb.GetRunnerRequest(name=result.runner))
        except CodeAlignError:
            return  # gone, or not reachable now; the image digest matched
        for runner in answer.runners:
            if runner.name == result.runner and runner.python_version not in ("", wanted.python_version):
                raise self._pause("Python", runner.name, runner.python_version, wanted.python_version)
        self._runners.add(result.runner)

    def _pause(self, what: str, runner: str, found: str, wanted: str) -> RunStopped:
        reason = (
            f"sandbox: runner {runner!r} has {what} {found or '(unknown)'}, but this run's verdicts use {wanted}. "
            f"Restore that runner image and resume, or judge again with the current one: codealign rejudge"
        )
        self._context.breaker.open(reason)
        return RunStopped(reason)

    async def _reject(self, item: Item, error: Exception) -> None:
        await self._context.reject(self._stage, [item.record.id], self._config_id, error)
        self._tally.finish(INTERNAL_ERROR)

    def _count(self, verdict: pb.Record, *, fresh: bool) -> None:
        result = verdict.verdict.result
        name = verdict_name(result.verdict)
        traces.mark("verdict", {"verdict": name, "record": verdict.id})
        reason = None if name == PASSED else name
        self._tally.finish(reason, fresh=fresh)
        if fresh:
            self._context.breaker.saw(self._stage.name, reason, result.detail)


def _is_of_the_machine(result: sb.Result) -> bool:
    return not OF_THE_MACHINE.isdisjoint((result.verdict, *result.run_verdicts))
