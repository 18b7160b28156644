"""Conversion of file rows to problems, for each layout in which benchmarks are published."""

from __future__ import annotations

from typing import Any

from codealign.coordinator.evaluation.files import Row
from codealign.coordinator.evaluation.mbpp_inputs import RULE_OF_ENTRY_POINT, shaped
from codealign.coordinator.evaluation.problems import CallTests, CheckTests, Part, Problem

MAX_CALLS = 5000
"""Maximum number of inputs of a problem: their recorded outputs must fit in one output stream."""
TYPED = "codealign_typed"
"""Field that marks rows whose inputs already have their types."""
_FAMILIES = {"HumanEval": "humaneval", "Mbpp": "mbpp", "MbppEval": "mbpp"}


def family(row: Row) -> str:
    """Return the benchmark family of a row: "humaneval", "mbpp", or the lower-case prefix of its task id."""
    before = row.text("task_id").partition("/")[0]
    return _FAMILIES.get(before, before.lower())


def has_inputs(row: Row) -> bool:
    """Return whether a row has EvalPlus' layout (inputs, a reference solution), not HumanEval's (a check function)."""
    return "base_input" in row.fields or "plus_input" in row.fields


def from_inputs(row: Row, benchmark: str, parts: tuple[str, ...]) -> Problem:
    """Build a problem from EvalPlus' layout, judged on these parts of its inputs ("base", "plus").

    Raises:
        FailedPrecondition: A field is missing or invalid; the message names it.
    """
    reference = row.text("prompt") + row.text("canonical_solution")
    entry_point = _entry_point(row)
    tests = CallTests(
        parts=tuple(_part(row, part) for part in parts),
        reference=reference,
        atol=row.number("atol"),
        rule=_rule(row, entry_point),
    )
    if not 0 < len(tests.inputs) <= MAX_CALLS:
        raise row.fault(f"{parts[0]}_input", f"must have 1 to {MAX_CALLS} inputs, has {len(tests.inputs)}")
    return Problem(benchmark, row.text("task_id"), row.text("prompt"), entry_point, reference, tests)


def from_check(row: Row, benchmark: str) -> Problem:
    """Build a problem from HumanEval's layout.

    Raises:
        FailedPrecondition: A field is missing or invalid; the message names it.
    """
    program = row.text("test")
    if "def check(" not in program:
        raise row.fault("test", "must define check(candidate)")
    return Problem(
        benchmark=benchmark,
        problem_id=row.text("task_id"),
        prompt=row.text("prompt"),
        entry_point=_entry_point(row),
        canonical_solution=row.text("prompt") + row.text("canonical_solution"),
        tests=CheckTests(program),
    )


def _entry_point(row: Row) -> str:
    name = row.text("entry_point")
    if not name.isidentifier():
        raise row.fault("entry_point", f"must be a function name, is {name!r}")
    return name


def _part(row: Row, name: str) -> Part:
    field = f"{name}_input"
    calls = row.calls(field)
    shape = shaped if family(row) == "mbpp" and TYPED not in row.fields else _as_given
    inputs = []
    for number, given in enumerate(calls):
        try:
            inputs.append(shape(row.text("task_id"), given))
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise row.fault(
                f"{field}[{number}]", f"does not have the form of this problem's inputs ({error})"
            ) from None
    return Part(name, tuple(inputs))


def _as_given(_: str, given: list[Any]) -> list[Any]:
    return given


def _rule(row: Row, entry_point: str) -> str:
    if family(row) == "mbpp":
        return RULE_OF_ENTRY_POINT.get(entry_point, "equal")
    return "find-zero" if family(row) == "humaneval" and entry_point == "find_zero" else "equal"
