"""Problems of a benchmark: prompts, and the tests that judge the answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records

RULES = ("equal", "set", "not-none", "find-zero", "surface-area", "digit-distance", "zero-too", "anything")
"""Rules for comparing outputs; see `in_sandbox/agreement.py`."""


@dataclass(frozen=True)
class Part:
    """A named set of inputs."""

    name: str
    """"base" or "plus"."""
    inputs: tuple[list[Any], ...]
    """Arguments of each call, encoded for `in_sandbox/calls.py`."""


@dataclass(frozen=True)
class CallTests:
    """Tests by calls: the outputs must match those of a reference program."""

    parts: tuple[Part, ...]
    reference: str
    """Program that defines the entry point and produces the expected outputs."""
    atol: float = 0.0
    """Absolute tolerance. 0 means exact, except for floats."""
    rule: str = "equal"

    @property
    def inputs(self) -> list[list[Any]]:
        """Inputs of all parts, in order."""
        return [given for part in self.parts for given in part.inputs]


@dataclass(frozen=True)
class CheckTests:
    """Tests by a program that defines `check(candidate)`, which makes assertions."""

    program: str


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark."""

    benchmark: str
    problem_id: str
    """Id in the benchmark, such as "HumanEval/0"."""
    prompt: str
    entry_point: str
    """The function that the tests call."""
    canonical_solution: str
    """Correct solution, as a complete program."""
    tests: CallTests | CheckTests

    @property
    def tests_sha256(self) -> str:
        """Hash of the tests. The reference program represents the expected outputs, which follow from it."""
        return hashlib.sha256(json.dumps(asdict(self.tests), sort_keys=True).encode()).hexdigest()

    def record(self) -> pb.Record:
        """Return the Problem record, which is the parent of the problem's results."""
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
    """A benchmark with its problems, in file order."""

    name: str
    problems: tuple[Problem, ...]
    source: str
    """File name or hub repository."""

    @property
    def sha256(self) -> str:
        """Hash of the prompts and tests."""
        parts = [(each.problem_id, each.prompt, each.entry_point, each.tests_sha256) for each in self.problems]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def spread(self, limit: int) -> Sequence[Problem]:
        """Return `limit` problems, spread evenly over the benchmark; 0 returns all."""
        total = len(self.problems)
        if limit == 0 or limit >= total:
            return self.problems
        return [self.problems[number * total // limit] for number in range(limit)]
