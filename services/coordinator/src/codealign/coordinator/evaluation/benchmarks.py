"""Registry of the benchmarks that a model can be evaluated on.

A benchmark is an adapter: a name, and a way to load its problems from the user's files or from the hub. Add one with
`register`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from codealign.common.errors import FailedPrecondition, NotFound
from codealign.coordinator.evaluation import hub, layouts
from codealign.coordinator.evaluation.files import Row, folder_files, rows
from codealign.coordinator.evaluation.problems import Benchmark, Problem


class NotReached(NotFound):
    """A benchmark's problems are on the hub, which is temporarily unreachable."""


class Adapter(Protocol):
    """Interface of a benchmark."""

    @property
    def name(self) -> str:
        """Name of the benchmark in requests."""

    def load(self, data: Path | None) -> Benchmark:
        """Load the problems.

        Args:
            data: The user's file or directory of files, or None.

        Raises:
            NotFound: No file contains the benchmark and it cannot be downloaded; the message says what to do.
                `NotReached` if a later attempt may succeed.
            FailedPrecondition: A file is damaged, or `data` does not exist; the message says where and what to do.
        """


@dataclass(frozen=True)
class PublishedBenchmark:
    """A benchmark in EvalPlus' or HumanEval's layout. Its file is recognized by content, not by name."""

    name: str
    family: str
    """Family of its task ids; see `layouts.family`."""
    parts: tuple[str, ...]
    """Input sets that judge a solution, in EvalPlus' layout: "base", or "base" and "plus"."""
    wanted_file: str
    """File that the error message asks for if there is none."""
    source: hub.Source | None = None
    """Location on the hub, if any."""

    def load(self, data: Path | None) -> Benchmark:
        """Load the problems; see `Adapter.load`.

        EvalPlus' layout takes precedence, because EvalPlus computes both scores from one file.
        """
        file = self._file(data) if data else None
        if file is not None:
            return self._built(list(rows(file)), file.name)
        if self.source is None:
            raise NotFound(f"{self.name}: {self._wish(data)}")
        try:
            found = hub.rows(self.source)
        except hub.Unreachable as error:
            kind = NotReached if isinstance(error, hub.Away) else NotFound
            raise kind(
                f"{self.name}: {self._wish(data)}; and {self.source.repository} cannot be loaded from the hub: {error}"
            ) from None
        return self._built(found, self.source.repository)

    def _wish(self, data: Path | None) -> str:
        where = f"no such file in {data}" if data else "no local file"
        return (
            f"{where}: provide {self.wanted_file} with --benchmarks "
            "(of the coordinator: CODEALIGN_COORDINATOR_EVALUATION_DATA)"
        )

    def _file(self, data: Path) -> Path | None:
        found: dict[bool, list[Path]] = {True: [], False: []}
        for path in folder_files(data):
            first = next(rows(path), None)
            if first is None:
                raise FailedPrecondition(f"benchmark file {path}: is empty; download it again")
            if "task_id" in first.fields and layouts.family(first) == self.family:
                found[layouts.has_inputs(first)].append(path)
        candidates = found[True] or (found[False] if self.parts == ("base",) else [])
        if len(candidates) > 1:
            names = " and ".join(str(path) for path in candidates)
            raise FailedPrecondition(f"{self.name}: several files contain this benchmark ({names}); keep one")
        return candidates[0] if candidates else None

    def _built(self, found: Sequence[Row], source: str) -> Benchmark:
        problems: dict[str, Problem] = {}
        with_inputs = layouts.has_inputs(found[0])  # all rows must have the same layout
        for row in found:
            problem = (
                layouts.from_inputs(row, self.name, self.parts) if with_inputs else layouts.from_check(row, self.name)
            )
            if problem.problem_id in problems:
                raise row.fault("task_id", f"duplicate problem {problem.problem_id}")
            problems[problem.problem_id] = problem
        return Benchmark(self.name, tuple(problems.values()), source)


_ADAPTERS: dict[str, Adapter] = {}


def register(adapter: Adapter) -> None:
    """Register a benchmark."""
    if adapter.name in _ADAPTERS:
        raise ValueError(f"benchmark {adapter.name} is already registered")
    _ADAPTERS[adapter.name] = adapter


def names() -> list[str]:
    """Return the names of all benchmarks, sorted."""
    return sorted(_ADAPTERS)


def load(name: str, data: Path | None) -> Benchmark:
    """Load a benchmark's problems; see `Adapter.load`.

    Raises:
        KeyError: The benchmark is unknown.
        NotFound: Its problems are neither in a file nor on the hub.
        FailedPrecondition: Its problems cannot be read.
    """
    return _ADAPTERS[name].load(data)


_HUMANEVAL_FILE = "EvalPlus' HumanEvalPlus.jsonl.gz"
_MBPP_FILE = "EvalPlus' MbppPlus.jsonl.gz"
register(
    PublishedBenchmark(
        "humaneval", "humaneval", ("base",), f"{_HUMANEVAL_FILE}, or OpenAI's HumanEval.jsonl.gz", hub.HUMANEVAL
    )
)
register(PublishedBenchmark("humaneval+", "humaneval", ("base", "plus"), _HUMANEVAL_FILE, hub.HUMANEVAL_PLUS))
register(
    PublishedBenchmark("mbpp", "mbpp", ("base",), f"{_MBPP_FILE}, or MBPP in HumanEval's layout (.jsonl)", hub.MBPP)
)
register(
    PublishedBenchmark("nanoeval", "nanoeval", ("base", "plus"), "NanoEval.jsonl, which comes with the model nano")
)
register(PublishedBenchmark("mbpp+", "mbpp", ("base", "plus"), _MBPP_FILE, hub.MBPP_PLUS))
