"""Verdicts: looked up first, asked of the sandbox when they are not there.

A verdict on a response is found again by every run that asks for the same execution. Not so those that say as much of
the machine as of the program: they are children of the run as well as of the response, so that the run has its record
and every other run executes the program for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.clients import Clients
from codealign.coordinator.ground.calls import execute, trim
from codealign.coordinator.ground.tally import PASSED, StageTally, verdict_name
from codealign.coordinator.ground.store import RunStore

OF_THE_MACHINE = frozenset({sb.VERDICT_TIMED_OUT, sb.VERDICT_OUT_OF_MEMORY})
"""Verdicts that another machine, or this one on another day, may not give."""
UNDECIDED = "undecided (infrastructure; tried again when the run is resumed)"


@dataclass
class Execution:
    """The execution stage of a run."""

    run_id: str
    config_id: str
    settings: pb.ExecutionSettings
    store: RunStore
    clients: Clients
    tally: StageTally
    slots: asyncio.Semaphore
    gate: Callable[[], None]
    """Raises RunStopped when the run is to stop. Asked between two tries alone: a verdict on a response that is
    there is part of finishing what is in flight."""

    async def judge(self, response: pb.Record) -> pb.Record | None:
        """The verdict on a response; None where the infrastructure kept failing: then nothing is recorded."""
        there = await self._find(response)
        if there is not None:
            self._count(there, fresh=False)
            return there
        async with self.slots:
            self.tally.in_flight += 1
            try:
                result = await self._execute(response)
            finally:
                self.tally.in_flight -= 1
        if result is None:
            self.tally.finish(UNDECIDED)
            return None
        trim(result)
        record = pb.Record(
            kind=pb.KIND_VERDICT,
            parents=self._parents(response, of_the_machine=_is_of_the_machine(result)),
            stage_config_id=self.config_id,
            verdict=pb.VerdictBody(result=result),
            provenance=pb.Provenance(seconds=result.queue_seconds + result.wall_seconds),
        )
        kept = await self.store.append(record)
        self._count(kept, fresh=True)
        return kept

    def _parents(self, response: pb.Record, *, of_the_machine: bool) -> list[str]:
        return [response.id, self.run_id] if of_the_machine else [response.id]

    async def _find(self, response: pb.Record) -> pb.Record | None:
        """The verdict that this run has, or else one that any run may have."""
        own, shared = (
            records.derive_id(
                pb.KIND_VERDICT, self._parents(response, of_the_machine=each), stage_config_id=self.config_id
            )
            for each in (True, False)
        )
        found = await self.store.get([own, shared])
        verdict = found.get(own) or found.get(shared)
        return await self.store.append(verdict) if verdict is not None else None

    async def _execute(self, response: pb.Record) -> sb.Result | None:
        request = sb.ExecuteRequest(
            program=sb.Program(language=sb.LANGUAGE_PYTHON, code=response.response.code, tests=response.response.tests),
            profile=self.settings.profile,
            limits=self.settings.limits,
            runs=self.settings.runs,
            request_id=response.id,
        )
        return await execute(self.clients, request, self.tally, self.gate)

    def _count(self, verdict: pb.Record, *, fresh: bool) -> None:
        name = verdict_name(verdict.verdict.result.verdict)
        self.tally.finish(None if name == PASSED else name, fresh=fresh)


def _is_of_the_machine(result: sb.Result) -> bool:
    return not OF_THE_MACHINE.isdisjoint((result.verdict, *result.run_verdicts))


def passed(verdict: pb.Record | None) -> bool:
    """The verdict is a pass."""
    return verdict is not None and verdict.verdict.result.verdict == sb.VERDICT_PASSED
