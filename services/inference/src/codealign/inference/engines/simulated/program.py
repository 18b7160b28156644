"""Runnable functions with assertions of known truth, so that execution finds the outcome that was drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codealign.inference.engines.simulated import profile
from codealign.inference.engines.simulated.draws import Draws
from codealign.inference.engines.simulated.words import NOUNS

_Step = tuple[str, Callable[[list[int], int], list[int]]]
_STEPS: tuple[_Step, ...] = (
    ("[{item} + {k} for {item} in {source}]", lambda values, k: [value + k for value in values]),
    ("[{k} * {item} for {item} in {source}]", lambda values, k: [k * value for value in values]),
    ("[{item} for {item} in {source} if {item} % {k}]", lambda values, k: [value for value in values if value % k]),
    (
        "sorted({source}, key=lambda {item}: {item} % {k})",
        lambda values, k: sorted(values, key=lambda value: value % k),
    ),
    ("{source}[1:] + [{k}] + {source}[:1]", lambda values, k: [*values[1:], k, *values[:1]]),
    ("[abs({item} - {k}) for {item} in reversed({source})]", lambda values, k: [abs(v - k) for v in reversed(values)]),
    ("[max({item}, {k}) for {item} in {source}]", lambda values, k: [max(value, k) for value in values]),
    ("[{item} // {k} for {item} in {source}] + {source}", lambda values, k: [value // k for value in values] + values),
    (
        "[{item} - {k} * place for place, {item} in enumerate({source})]",
        lambda values, k: [value - k * place for place, value in enumerate(values)],
    ),
    (
        "[sum({source}[: end + 1]) % {k} for end in range(len({source}))]",
        lambda values, k: [sum(values[: end + 1]) % k for end in range(len(values))],
    ),
)
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Program:
    """A function over a list of integers."""

    name: str
    names: tuple[str, ...]
    """Names of the parameter and of each step's result."""
    steps: tuple[tuple[int, int], ...]
    """Each step's index into the kinds of steps, and its constant."""

    def value(self, values: list[int]) -> list[int]:
        """Compute the function's value."""
        for kind, constant in self.steps:
            values = _STEPS[kind][1](values, constant)
        return values

    def code(self, docstring: str, outcome: str) -> str:
        """Return the source code, including the fault that causes `outcome`, if any."""
        body = [f'"""{docstring}"""']
        for (kind, constant), source, target in zip(self.steps, self.names, self.names[1:], strict=False):
            body.append(f"{target} = {_STEPS[kind][0].format(item=f'one_{source}', source=source, k=constant)}")
        result = self.names[len(self.steps)]
        body += {
            profile.RAISED: [f"return {result}[len({result})]"],
            profile.TIMED_OUT: [f"while {result} is not None:", f"{_INDENT}{result} = {result}[:]", f"return {result}"],
            profile.EXITED_EARLY: ["raise SystemExit(0)"],
            profile.SYNTAX_ERROR: [f"return ({result}"],
        }.get(outcome, [f"return {result}"])
        return "\n".join([f"def {self.name}({self.names[0]}):", *(_INDENT + line for line in body)])

    def tests(self, draws: Draws, count: int, outcome: str) -> list[str]:
        """Return `count` lines of tests; if an assertion should fail, exactly one does."""
        wrong = draws.below(count) if outcome == profile.FAILED_ASSERTION else -1
        lines = []
        for number in range(count):
            given = [draws.below(199) - 99 for _ in range(2 + draws.below(4))]
            if outcome == profile.NO_ASSERTION:
                lines.append(f"{self.name}({given})")
                continue
            expected = self.value(given)
            lines.append(f"assert {self.name}({given}) == {[*expected, 0] if number == wrong else expected}")
        return lines


def draw(draws: Draws, name: str) -> Program:
    """Draw a program."""
    count = 2 + draws.below(2)
    names = [draws.pick(NOUNS)]
    while len(names) <= count:
        other = f"{draws.pick(NOUNS)}_{draws.pick(NOUNS)}"
        if other not in names:
            names.append(other)
    return Program(name, tuple(names), tuple((draws.below(len(_STEPS)), 2 + draws.below(96)) for _ in range(count)))
