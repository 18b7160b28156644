"""The measured programs: a bare assertion, a model's typical output, and a program that imports numpy."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codealign.coordinator.evaluation import benchmarks
from codealign.coordinator.evaluation.in_sandbox.calls import decoded
from codealign.coordinator.evaluation.problems import CallTests, Problem

KINDS = ("empty", "typical", "numpy")
_EVERY = 8
"""Use every n-th HumanEval problem."""
_TESTS_LIMIT = 16 * 1024
"""Maximum characters of tests: models do not write longer ones."""


@dataclass(frozen=True)
class Program:
    """Code and tests, as in a request."""

    code: str
    tests: str

    @property
    def text(self) -> str:
        """Code and tests as one source."""
        return f"{self.code}\n{self.tests}"


_EMPTY = Program("", "assert True\n")
_NUMPY = Program(
    "import numpy\n\n\ndef mean(values):\n    return float(numpy.array(values).mean())\n",
    "assert mean([1, 2, 3]) == 2.0\n",
)
_OWN: tuple[Program, ...] = (
    Program(
        "def merge(spans):\n    merged = []\n    for low, high in sorted(spans):\n"
        "        if merged and low <= merged[-1][1]:\n"
        "            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))\n        else:\n"
        "            merged.append((low, high))\n    return merged\n",
        "assert merge([]) == []\nassert merge([(5, 7), (1, 3), (2, 4)]) == [(1, 4), (5, 7)]\n"
        "assert merge([(1, 9), (2, 3)]) == [(1, 9)]\n",
    ),
    Program(
        "import re\nfrom collections import Counter\n\n\ndef most_common(text, count):\n"
        "    words = re.findall(r'[a-z]+', text.lower())\n"
        "    return sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0]))[:count]\n",
        "assert most_common('A b a, c. B a', 2) == [('a', 3), ('b', 2)]\nassert most_common('', 3) == []\n",
    ),
    Program(
        "from dataclasses import dataclass, field\nfrom typing import List\n\n\n@dataclass\nclass Account:\n"
        "    owner: str\n    balance: float = 0.0\n    history: List[float] = field(default_factory=list)\n\n"
        "    def post(self, amount: float) -> None:\n        if self.balance + amount < 0:\n"
        "            raise ValueError('overdrawn')\n        self.balance += amount\n"
        "        self.history.append(amount)\n",
        "account = Account('a')\naccount.post(5)\naccount.post(-2)\nassert account.balance == 3\n"
        "assert account.history == [5, -2]\ntry:\n    account.post(-10)\nexcept ValueError:\n    refused = True\n"
        "else:\n    refused = False\nassert refused\n",
    ),
    Program(
        "import heapq\n\n\ndef shortest(graph, start):\n    known, waiting = {}, [(0, start)]\n    while waiting:\n"
        "        distance, node = heapq.heappop(waiting)\n        if node in known:\n            continue\n"
        "        known[node] = distance\n        for other, length in graph.get(node, ()):\n"
        "            heapq.heappush(waiting, (distance + length, other))\n    return known\n",
        "graph = {'a': [('b', 2), ('c', 5)], 'b': [('c', 1)]}\n"
        "assert shortest(graph, 'a') == {'a': 0, 'b': 2, 'c': 3}\nassert shortest({}, 'x') == {'x': 0}\n",
    ),
)


def of_problem(problem: Problem) -> Program | None:
    """Return the canonical solution with an assertion for each base input, or None if the inputs are not literals."""
    assert isinstance(problem.tests, CallTests)
    space: dict[str, Any] = {"__name__": "canonical"}
    exec(compile(problem.canonical_solution, problem.problem_id, "exec"), space)
    lines = []
    for given in problem.tests.inputs:
        arguments = [repr(decoded(argument)) for argument in given]
        wanted = space[problem.entry_point](*(decoded(argument) for argument in given))
        try:
            if ast.literal_eval(repr(wanted)) != wanted:
                return None
        except (ValueError, SyntaxError):
            return None
        lines.append(f"assert {problem.entry_point}({', '.join(arguments)}) == {wanted!r}\n")
    tests = "".join(lines)
    return Program(problem.canonical_solution, tests) if len(tests) <= _TESTS_LIMIT else None


def load() -> tuple[dict[str, tuple[Program, ...]], str]:
    """Return the programs of each kind, and the source of the typical ones."""
    folder = os.environ.get("CODEALIGN_BENCHMARK_DATA")
    typical, source = _OWN, f"{len(_OWN)} programs of this benchmark's own (CODEALIGN_BENCHMARK_DATA is not set)"
    if folder:
        problems = benchmarks.load("humaneval", Path(folder)).problems[::_EVERY]
        found = [program for problem in problems if (program := of_problem(problem)) is not None]
        left_out = len(problems) - len(found)
        typical = tuple(found)
        source = (
            f"{len(found)} canonical solutions of HumanEval+ with their base tests ({left_out} left out as too long)"
        )
    return {"empty": (_EMPTY,), "typical": typical, "numpy": (_NUMPY,)}, source
