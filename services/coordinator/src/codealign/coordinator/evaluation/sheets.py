"""State of an evaluation: known and missing results, in one sheet per benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.sequences import batched
from codealign.coordinator.evaluation.problems import Benchmark, Problem
from codealign.coordinator.evaluation.request import Asked, configuration
from codealign.coordinator.evaluation.results import Board
from codealign.coordinator.evaluation.runners import RunnerIdentity, current
from codealign.coordinator.ground.ports import Services

_GET = 100
"""Results per request: the largest ones (two texts of MAX_TOKENS) still fit in one response."""


@dataclass
class Sheet:
    """Known and missing results of one benchmark in an evaluation."""

    board: Board
    problems: Sequence[Problem]
    records: Sequence[pb.Record]
    """Problem records, in the same order."""
    samples: int

    @classmethod
    def of(cls, asked: Asked, benchmark: Benchmark, runners: RunnerIdentity) -> Sheet:
        """Return a sheet without results.

        Args:
            asked: Settings with the model's name and revision.
            benchmark: Benchmark of the sheet.
            runners: Runners that the results depend on.
        """
        problems = benchmark.spread(asked.limit)
        config = configuration(asked, benchmark, asked.model.revision, runners)
        ids = tuple(problem.problem_id for problem in problems)
        board = Board(config, asked.model.model, asked.samples, ids)
        return cls(board, problems, [problem.record() for problem in problems], asked.samples)

    async def read(self, get: Callable[[Sequence[str]], Awaitable[Iterable[pb.Record]]]) -> None:
        """Add the missing results that are in the store.

        Args:
            get: Returns the records with the given ids that exist.
        """
        config = self.board.config.id
        missing = [
            _result_id(record.id, attempt, config)
            for problem, record in zip(self.problems, self.records, strict=True)
            for attempt in sorted(self.missing(problem))
        ]
        for some in batched(missing, _GET):
            for found in await get(some):
                self.board.add(found)

    def missing(self, problem: Problem) -> set[int]:
        """Return the missing samples of a problem."""
        return set(range(self.samples)) - set(self.board.outcomes.get(problem.problem_id, {}))

    @property
    def undecided(self) -> int:
        """Number of missing samples."""
        return sum(len(self.missing(problem)) for problem in self.problems)


async def new_sheets(asked: Asked, loaded: Iterable[Benchmark], runners: RunnerIdentity) -> list[Sheet]:
    """Return a sheet for each benchmark; see `Sheet.of`."""
    return [await asyncio.to_thread(Sheet.of, asked, benchmark, runners) for benchmark in loaded]


class StoredSheets:
    """Sheets of an evaluation, read from the store because another coordinator may be working on it.

    Args:
        asked: Settings with the model's name and revision.
        loaded: Benchmarks of the evaluation.
        services: Clients of the other services; the store and the sandbox are used.
    """

    def __init__(self, asked: Asked, loaded: Sequence[Benchmark], services: Services) -> None:
        self._asked, self._loaded, self._services = asked, loaded, services
        self._runners: RunnerIdentity | None = None
        self.sheets: Sequence[Sheet] = ()
        """Sheets by benchmark; empty before the first successful read."""

    @property
    def complete(self) -> bool:
        """Whether every sample is judged."""
        return bool(self.sheets) and not any(sheet.undecided for sheet in self.sheets)

    def take(self, sheets: Sequence[Sheet], runners: RunnerIdentity) -> None:
        """Continue with the sheets of a controller."""
        self.sheets, self._runners = sheets, runners

    async def read(self) -> None:
        """Read new results of the current runners, unless the sheets are complete.

        Raises:
            Unavailable: The store or the sandbox is unavailable.
        """
        if self.complete:
            return
        runners = await current(self._services.sandbox)
        if runners != self._runners:
            self.take(await new_sheets(self._asked, self._loaded, runners), runners)
        for sheet in self.sheets:
            await sheet.read(self._get)

    async def _get(self, ids: Sequence[str]) -> Iterable[pb.Record]:
        return (await self._services.dataset.get(ds.GetRequest(ids=ids))).records


def _result_id(problem_id: str, attempt: int, config_id: str) -> str:
    return records.derive_id(pb.KIND_EVALUATION_RESULT, [problem_id], attempt=attempt, stage_config_id=config_id)
