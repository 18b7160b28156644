"""What is said of the passes of a run."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.rules.duplicates import Row
from fakes.programs import executed
from tests.bench.agreeing import answer, compared
from tests.bench.choosing import Attempt
from tests.bench.rejudged import told

TASK = "Write `f(x)` that returns the double of `x`."
DOUBLE, SQUARE = (f"def f(x):\n    return {text}\n" for text in ("2 * x", "x ** 2"))


def run(programs: Sequence[sb.Program], limits: Sequence[sb.Limits] = ()) -> list[sb.Result]:
    """Execute programs of this file."""
    found = map(executed, programs)
    return [
        sb.Result(verdict=sb.VERDICT_PASSED if passed else sb.VERDICT_FAILED_ASSERTION, stdout=sb.Output(data=output))
        for passed, output in found
    ]


def attempts(*given: tuple[str, str]) -> list[Attempt]:
    """Return attempts at the task with the verdicts on their own tests."""
    results = run([sb.Program(code=code, tests=tests) for code, tests in given])
    return [
        Attempt(f"{n}", n, 0, "", TASK, code, tests, result.verdict, False, Row(f"{n}", "", "", ""))
        for n, ((code, tests), result) in enumerate(zip(given, results, strict=True))
    ]


def said(*given: tuple[str, str]) -> str:
    """Return what is said of attempts."""
    found = compared(TASK, list(map(answer, attempts(*given))), run)
    assert found is not None
    return "\n".join(told(attempts(*given), found))


def test_the_row_is_named_with_the_strength_of_its_tests_and_what_is_added() -> None:
    text = said((DOUBLE, "assert f(0) == 0\n"), (DOUBLE, "assert f(3) == 6\n"), (SQUARE, "assert f(2) == 4\n"))
    assert "attempt 0 passes" in text
    assert "row: attempt" in text
    assert "mutation score" in text


def test_attempts_that_contradict_each_other_give_no_row() -> None:
    text = said((DOUBLE, "assert f(2) == 4\n"), (SQUARE, "assert f(2) == 4\n"))
    assert text.count("passes: ") == 2
    assert text.endswith("no row: the attempts contradict each other")
