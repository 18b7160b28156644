"""Whatever a model writes is read in bounded time, and no error comes out."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codealign.coordinator.agreement import hints, inputs, observing, steadiness
from codealign.coordinator.agreement.calls import MAX_CHARS, Reading, read
from codealign.coordinator.agreement.mutants import mutants

MOST_CALLS = 3_000_000
"""Calls of functions, builtins included, that one attempt's analysis may take. A second has some ten million."""
CODE = "def f(*xs):\n    return xs\n"


def analyzed(code: str, tests: str, instruction: str = "") -> Reading:
    """Do everything that the coordinator does with an attempt before it is executed."""
    reading = read(code, tests)
    found = inputs.vary([reading], hints.find([code], [tests], instruction))
    if reading.subject is not None:
        observing.program(code, reading.subject, found, "key", oracles=reading.oracles, preamble=reading.preamble)
        any(steadiness.has_sets(each.arguments) for each in found)
    steadiness.of_code(code, reading.subject.view if reading.subject is not None else "")
    mutants(code)
    return reading


def calls_of(work: Callable[[], object]) -> int:
    """Count the calls that some work makes."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def long(piece: str) -> str:
    """Repeat a piece up to the limit of a text."""
    return piece * ((MAX_CHARS - 100) // len(piece))


BOOLEAN = " and ".join(["x < 5"] * 900)
HOSTILE = [
    pytest.param("\0", "\0", id="null bytes"),
    pytest.param("\ud800 = 1", "f('\ud800')", id="surrogates"),
    pytest.param("\ufeff" + CODE, "\ufeffassert f(1)", id="byte-order marks"),
    pytest.param(CODE, "assert f(" + "[" * 5_000 + "]" * 5_000 + ")", id="nested brackets"),
    pytest.param(CODE, "assert f(" + "[" * 90 + "]" * 90 + ") == 1", id="a list nested deeply"),
    pytest.param(CODE, "assert f(" + "-" * 9_000 + "1)", id="nested signs"),
    pytest.param(CODE, "assert f(1)" + ".x" * 15_000, id="a long chain"),
    pytest.param(CODE, "assert f(1)" + "(1)" * 10_000, id="a long chain of calls"),
    pytest.param(CODE, "assert f(1) == " + "1 + " * 8_000 + "1", id="a long sum"),
    pytest.param("def f(x):\n    return " + "1 + " * 2_000 + "x < 3", "assert f(1)", id="a long sum in the code"),
    pytest.param(CODE, f"assert f({'9' * 5_000})", id="a number of many digits"),
    pytest.param(CODE, f"assert f(0x{'f' * 9_000}) == 0x{'f' * 9_000}", id="a number of many digits in hexadecimal"),
    pytest.param(f"def f(x):\n    return x < 0x{'f' * 5_000}\n", "assert f(1)", id="such a number in the code"),
    pytest.param(CODE, "assert f([[[0] * 400] * 400] * 400)", id="a product of lists"),
    pytest.param(CODE, "assert f('a' * 10 ** 10, 2 ** 10 ** 10, 10 ** 10 ** 10)", id="huge computed literals"),
    pytest.param(CODE, "assert f('' * 10 ** 30, [] * 10 ** 30, 'a' * -10 ** 30)", id="nothing repeated too often"),
    pytest.param(CODE, "a = [1, 1]\n" + "a = [a, a]\n" * 500 + "assert f(a) == a", id="values that double"),
    pytest.param(CODE, long("for i in range(64):\n    assert f(i) == i\n"), id="many loops"),
    pytest.param(
        CODE,
        "".join("    " * n + f"for i{n} in range(64):\n" for n in range(15)) + "    " * 15 + "assert f(i3)\n",
        id="nested loops",
    ),
    pytest.param(CODE, f"for x in range(64):\n    assert f(x) == ({BOOLEAN})\n", id="a large condition in a loop"),
    pytest.param(CODE, long("assert f([1, 2], 'a') == sorted([1, 2])\n"), id="many oracles"),
    pytest.param(CODE, f"assert f({', '.join(['1'] * 900)})", id="many arguments"),
    pytest.param(CODE, "assert f([" + "{'a': [1, 2, 3]}, " * 40 + "])", id="a large record"),
    pytest.param(CODE, f"assert f('{'x' * 1_900}')", id="a long text"),
    pytest.param(CODE, long("assert f(1) == 1 and f(2) == 2\n"), id="many assertions"),
    pytest.param(CODE, "assert all([" + long("f(1), ") + "])", id="all of many"),
    pytest.param(long("def f(x):\n    return x < 5\n")[:8_000], "assert f(1)", id="many functions"),
    pytest.param(f"def f(x):\n    return {BOOLEAN}\n", "assert f(1)", id="many comparisons on a line"),
    pytest.param("def f(x):\n" + "    if x < 5:\n        return 1\n" * 250, "assert f(1)", id="many branches"),
    pytest.param(
        "def f(x):\n" + "".join(" " * n + "if x:\n" for n in range(4, 90)) + " " * 90 + "return 1\n",
        "assert f(1)",
        id="deep branches",
    ),
    pytest.param("class C:\n" + "    def m(self): pass\n" * 800, "assert C().m() == 1\n" * 400, id="many methods"),
    pytest.param("def f(x, x):\n    return x", "assert f(1)", id="code that parses but does not compile"),
    pytest.param(long("a = set()\na\n"), "assert f({'a'})", id="a set in many places"),
    pytest.param("a = " + "a & " * 2_000 + "{1}", "assert f({(1, 'a')})", id="a set of many parts"),
    pytest.param("def f(x):\n    return '\\d' < x\n", "assert f('\\d') == '\\d'", id="odd escapes"),
    pytest.param("def f(x):\r    return x < 5\r", "assert f(1)\rassert f(2)\r", id="carriage returns"),
    pytest.param("def f(x):\n\f    return x < 5\n", "\fassert f(1)", id="form feeds"),
    pytest.param("f = 5", "assert f(1)", id="no function"),
    pytest.param(CODE, "assert f(**{1: 2}, **{'a': 1})\nassert f(*x, **y)\nassert f(a=1, **{'a': 2})", id="unpacking"),
    pytest.param(CODE, "assert f({[]: 1}, {{}}, {**{}}, {1, *[2]})", id="unhashable items"),
    pytest.param(CODE, "assert f(float('x'), dict([1]), set([[]]), list(5))", id="constructors that raise"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("code", "tests"), HOSTILE)
def test_every_text_is_analyzed_in_bounded_time(code: str, tests: str) -> None:
    assert calls_of(lambda: analyzed(code, tests)) < MOST_CALLS


@pytest.mark.parametrize(
    "instruction",
    [
        pytest.param("1." * 16_000, id="one long number"),
        pytest.param("-1" * 16_000, id="signs"),
        pytest.param("'" * 32_000, id="quotes"),
        pytest.param("'a" * 16_000, id="open quotes"),
        pytest.param("nonnegative " * 3_000, id="words"),
        pytest.param("9" * 32_000, id="digits"),
        pytest.param("٣ is not 3, ² is not 2", id="other digits"),
        pytest.param("\u017fix, f\u0131ve, S\u0130X", id="other letters"),
    ],
)
def test_every_instruction_is_read(instruction: str) -> None:
    found = hints.find([CODE], ["assert f(3)"], instruction)
    assert len(found.numbers) <= hints.MAX_NUMBERS
    assert len(found.texts) <= hints.MAX_TEXTS


def test_code_that_is_only_just_shallow_enough_has_mutants_or_none() -> None:
    code = "def f(x):\n    return " + "0 - " * 40 + "x\n"
    limit, depth, found = sys.getrecursionlimit(), len(inspect.stack()), []
    try:
        # Whatever a level of the tree takes, at some limits it can be written, but not with `-1` at its deepest place.
        for most in range(depth + 60, depth + 260, 2):
            sys.setrecursionlimit(most)
            found.append(len(mutants(code, limit=2)))
    finally:
        sys.setrecursionlimit(limit)
    assert (found[0], found[-1]) == (0, 2)


fragments = st.sampled_from(
    [
        "assert ", "f(", "x", ")", "[", "]", "1", " == ", " and ", "not ", "'a'", ", ", "\n", "    ", "for x in ", ":",
        "def g(x)", "*", "**", "{", "}", " if ", " else ", "lambda x", "class C", "self.", "assertEqual(", " in ", "=",
        "with ", "return ", "5", "-", "abs(", " < ", "async ", "await ", "match x", "case ", ";", "\\\n", "#", '"""',
        "set(", "|", ".pop()",
    ]
)  # fmt: skip


@given(st.lists(fragments, max_size=30).map("".join), st.lists(fragments, max_size=30).map("".join))
def test_no_text_raises(code: str, tests: str) -> None:
    analyzed(CODE + code, tests)
    analyzed(CODE, "assert f(1)\n" + tests)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_characters_raise(code: str, tests: str, instruction: str) -> None:
    analyzed(code, tests, instruction)
