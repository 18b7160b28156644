"""Problems: what a model is asked, and what judges its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records

RULES = ("equal", "set", "not-none", "find-zero", "surface-area", "digit-distance", "zero-too", "anything")
"""How outputs are compared; see `in_sandbox/agreement.py`."""


@dataclass(frozen=True)
class Part:
    """Inputs of one kind."""

    name: str
    """"base" or "plus"."""
    inputs: tuple[list[Any], ...]
    """Each the arguments of one call, as `in_sandbox/calls.py` decodes them."""


@dataclass(frozen=True)
class CallTests:
    """Judged by calls: the outputs must be those of a reference program."""

    parts: tuple[Part, ...]
    reference: str
    """A program that defines the entry point; its outputs are the expected ones."""
    atol: float = 0.0
    """Absolute tolerance. 0: exact, but for floats."""
    rule: str = "equal"

    @property
    def inputs(self) -> list[list[Any]]:
        """Those of all parts, in order."""
        return [given for part in self.parts for given in part.inputs]


@dataclass(frozen=True)
class CheckTests:
    """Judged by a program that defines `check(candidate)`, which asserts."""

    program: str


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark."""

    benchmark: str
    problem_id: str
    """As the benchmark numbers it: "HumanEval/0"."""
    prompt: str
    entry_point: str
    """The function that the tests call."""
    canonical_solution: str
    """A right answer, as a whole program."""
    tests: CallTests | CheckTests

    @property
    def tests_sha256(self) -> str:
        """A hash of what judges a solution. The reference program stands for the outputs that follow from it."""
        return hashlib.sha256(json.dumps(asdict(self.tests), sort_keys=True).encode()).hexdigest()

    def record(self) -> pb.Record:
        """The Problem record, the parent of its results."""
        body = pb.Problem(
            benchmark=self.benchmark,
            problem_id=self.problem_id,
            prompt=self.prompt,
            entry_point=self.entry_point,
            tests_sha256=self.tests_sha256,
        )
        return records.complete(pb.Record(kind=pb.KIND_PROBLEM, problem=body))


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's problems, in the order of its file."""

    name: str
    problems: tuple[Problem, ...]
    source: str
    """The file's name, or the hub's repository."""

    @property
    def sha256(self) -> str:
        """A hash of what is asked and how it is judged."""
        parts = [(each.problem_id, each.prompt, each.entry_point, each.tests_sha256) for each in self.problems]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def spread(self, limit: int) -> Sequence[Problem]:
        """So many problems, spread evenly over the benchmark; 0 means all."""
        total = len(self.problems)
        if limit == 0 or limit >= total:
            return self.problems
        return [self.problems[number * total // limit] for number in range(limit)]
