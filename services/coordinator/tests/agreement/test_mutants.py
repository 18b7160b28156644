"""Mutants: small faults, each another program."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codealign.coordinator.agreement.mutants import MAX_CHARS, Mutant, mutants
from codealign.coordinator.reading.python_code import compiles


def bodies(body: str, head: str = "def f(x, y=0):") -> list[str]:
    """Return the mutants of a function as what stands in place of its body."""
    made = mutants(f"{head}\n    {body}\n", 100)
    assert all(each.code.startswith("def f(") for each in made)
    return [each.code.partition(":\n    ")[2].rstrip("\n") for each in made]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x < y", ["return x <= y"]),
        ("return x == y", ["return x != y"]),
        ("return x is not None", ["return x is None"]),
        ("return x not  in y", ["return x in y"]),
        ("return x <= y < 3", ["return x < y < 3", "return x <= y <= 3", "return x <= y < 4", "return x <= y < 2"]),
        ("return (x)<(y)", ["return (x)<=(y)"]),
        ("return x + y", ["return x - y", "return None"]),
        ("return x // y", ["return x / y"]),
        ("return -x", ["return x"]),
        ("return x and y", ["return x or y", "return False"]),
        ("return not x", ["return  x", "return False"]),
        ("return x[y:]", ["return x[(y) + 1:]"]),
        ("return x[:y]", ["return x[:(y) - 1]"]),
        ("return x[0]", ["return x[1]", "return x[-1]"]),
        ("return 'a'", ['return ""']),
        ("return x or ''", ['return x or "a"']),
        ("return [i for i in x if i]", ["return [i for i in x if True]", "return []"]),
        ("return {i: i for i in range(x)}", ["return {i: i for i in range((x) - 1)}", "return {}"]),
        ("return max(x)", ["return min(x)"]),
        ("return x.upper()", ["return x.lower()"]),
        ("return sorted(x, reverse=True)", ["return sorted(x, reverse=False)", "return []"]),
        ("return 1 if x else 2", ["return 1 if not (x) else 2"]),
        ("return 1.5", ["return 2.5"]),
    ],
)
def test_each_kind_of_fault_is_made(body: str, expected: list[str]) -> None:
    made = bodies(body)
    assert all(each in made for each in expected), made


def test_conditions_are_negated_and_removed() -> None:
    made = bodies("if x:\n        return 1\n    return 2")
    assert any(each.startswith("if not (x):") for each in made)
    assert any(each.startswith("if False:") for each in made)


def test_defaults_are_mutated() -> None:
    made = mutants("def f(x, n=3, *, name='a'):\n    return x\n", 20)
    heads = {each.code.partition("\n")[0] for each in made if each.kind == "default"}
    assert heads == {
        "def f(x, n=4, *, name='a'):",
        "def f(x, n=2, *, name='a'):",
        'def f(x, n=3, *, name=""):',
    }


def test_returned_values_have_the_kind_of_the_annotation() -> None:
    assert "return 0" in bodies("return g(x)", "def f(x) -> int:")
    assert "return []" in bodies("return g(x)", "def f(x) -> list[int]:")
    assert "return None" in bodies("return g(x)")


@pytest.mark.parametrize(
    "code",
    [
        pytest.param('def f(x):\n    """At most 5 of 3 < 4."""\n', id="a docstring"),
        pytest.param('def f(x):\n    "5"\n    x\n', id="a string statement"),
        pytest.param("def f(x: Literal[5], *, y: 'int < 3' = None) -> Literal[3]:\n    pass\n", id="annotations"),
        pytest.param("x: Literal[5]\n", id="an annotation without a value"),
        pytest.param("@cache(maxsize=5)\ndef f(x):\n    pass\n", id="decorators"),
        pytest.param("def f(x):\n    raise ValueError('bad' if x < 5 else 'good')\n", id="what is raised"),
        pytest.param("def f(x):\n    x.note = f'{x + 1} < 5'\n", id="f-strings"),
        pytest.param("if __name__ == '__main__':\n    print(1 + 2)\n", id="a main guard"),
        pytest.param("def f(x):\n    if __name__ == '__main__':\n        g(3)\n", id="a main guard inside"),
        pytest.param("print(f(1) < 2)\nfor i in range(5):\n    f(i)\n", id="demonstrations"),
        pytest.param("", id="nothing"),
        pytest.param("def f(x:", id="no code"),
    ],
)
def test_some_places_are_left_alone(code: str) -> None:
    assert mutants(code) == ()


CODE = '''"""Module."""
LIMIT = 5


def small(numbers, limit=LIMIT):
    """Keep what is less than 5."""
    kept = []
    for n in numbers:  # all of them
        if (
            n  # n > 3
            < limit
        ) and n != 2:
            kept.append(n * 2)
    return kept[:10]


class Shop:
    def total(self, prices):
        total = 0
        for price in prices:
            total += price
        return round(total, 2)
'''


def test_a_mutant_is_described_by_line_and_change() -> None:
    found = {each.description: each for each in mutants(CODE, 60)}
    mutant = found["line 11: `< limit` → `<= limit`"]
    assert (mutant.line, mutant.kind) == (11, "comparison")
    assert mutant.code == CODE.replace("< limit", "<= limit")
    assert "line 19: `0` → `1`" in found
    assert "line 21: `+= price` → `-= price`" in found


def test_few_mutants_are_spread_over_the_lines() -> None:
    made = mutants(CODE, 6)
    assert len(made) == len({each.line for each in made}) == 6
    assert made[0].line < 5
    assert max(each.line for each in made) > 18


def test_a_mutant_differs_in_one_place() -> None:
    for each in mutants(CODE, 60):
        changes = difflib.SequenceMatcher(None, CODE.split("\n"), each.code.split("\n"), autojunk=False).get_opcodes()
        changed = [(begin, end) for tag, begin, end, _, _ in changes if tag != "equal"]
        assert changed[0][0] + 1 <= each.line <= changed[0][1]
        assert len(changed) == 1 or each.kind == "condition"  # `not (` and `)` may be on two lines


def check(code: str, made: tuple[Mutant, ...], limit: int) -> None:
    assert len(made) <= limit
    normal = [ast.unparse(ast.parse(each.code)) for each in made]
    assert len({*normal, ast.unparse(ast.parse(code))}) == len(made) + 1
    assert all(compiles(each.code) for each in made)
    assert json.loads(json.dumps([dataclasses.asdict(each) for each in made])) is not None


def test_characters_of_several_bytes_shift_nothing() -> None:
    code = "def f(x):\n    é = 'ü€😀'; return é < x or 'ß' in x[1:]\n"
    made = mutants(code, 30)
    check(code, made, 30)
    assert code.replace("é < x", "é <= x") in {each.code for each in made}


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter() -> None:
    made = mutants("\ufeffdef f(x):\r\n    return x < 5\r\n", 30)
    assert "def f(x):\r\n    return x <= 5\r\n" in {each.code for each in made}


names = st.sampled_from(["a", "b", "c"])
expressions = st.recursive(
    names | st.integers(0, 20).map(str) | st.text(max_size=3).map(repr) | st.just("None"),
    lambda inner: st.one_of(
        st.tuples(
            inner, st.sampled_from(["<", "<=", "==", "is", "not in", "+", "-", "*", "//", "%", "and", "or"]), inner
        ).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        st.tuples(inner, inner).map(lambda parts: f"[{parts[0]} for a in {parts[1]} if a]"),
        inner.map(lambda part: f"(not {part})"),
        inner.map(lambda part: f"max({part}, key=len)"),
        st.tuples(inner, inner, inner).map(lambda parts: f"{parts[0]}[{parts[1]}:{parts[2]}]"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
    ),
    max_leaves=8,
)


@given(st.lists(expressions, min_size=1, max_size=4), st.integers(1, 30))
def test_mutants_compile_and_differ_from_the_code_and_each_other(lines: list[str], limit: int) -> None:
    code = "def f(a, b, c=1):\n" + "".join(f"    if {line}:\n        return {line}\n" for line in lines)
    if compiles(code):
        made = mutants(code, limit)
        check(code, made, limit)
        assert made == mutants(code, limit)
        assert made


def test_code_that_is_too_long_has_no_mutants() -> None:
    line = "    x = x < 5\n"
    assert mutants("def f(x):\n" + line * (MAX_CHARS // len(line) + 1)) == ()
