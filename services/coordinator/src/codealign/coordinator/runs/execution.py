"""Verdicts: looked up first, asked of the sandbox when they are not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.clients import Clients
from codealign.coordinator.calls import execute, trim
from codealign.coordinator.runs.progress import PASSED, StageTally, verdict_name
from codealign.coordinator.runs.store import RunStore

UNDECIDED = "undecided (infrastructure; tried again when the run is resumed)"


@dataclass
class Execution:
    """The execution stage of a run."""

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
        verdict_id = records.derive_id(pb.STAGE_VERDICT, [response.id], stage_config_id=self.config_id)
        there = await self.store.adopt([verdict_id])
        if verdict_id in there:
            self._count(there[verdict_id], fresh=False)
            return there[verdict_id]
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
            stage=pb.STAGE_VERDICT,
            parents=[response.id],
            stage_config_id=self.config_id,
            verdict=pb.VerdictBody(result=result),
            provenance=pb.Provenance(seconds=result.queue_seconds + result.wall_seconds),
        )
        kept = await self.store.append(record)
        self._count(kept, fresh=True)
        return kept

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


def passed(verdict: pb.Record | None) -> bool:
    """The verdict is a pass."""
    return verdict is not None and verdict.verdict.result.verdict == sb.VERDICT_PASSED
