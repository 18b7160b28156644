"""Rules for seeds, rows, benchmark texts and duplicates."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import ConfigurationError
from codealign.coordinator.rules import benchmarks, rows, seeds
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import Row, RowDuplicates
from codealign.coordinator.rules.near import BAND_COLLISION, PERMUTATIONS, NearDuplicates, bands_for, shingles
from codealign.coordinator.rules.source import bare_source, read

NONE = BenchmarkTexts()
GOOD = 'def area(w, h):\n    """Area of a rectangle."""\n    return w * h\n'


def dropped(code: str, imports: tuple[str, ...] = (), texts: BenchmarkTexts = NONE) -> str | None:
    drop = seeds.static_drop(pb.Seed(code=code, imports=imports), texts)
    assert drop is None or drop.rule in seeds.RULES
    return drop.rule if drop else None


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        (GOOD, None),
        ("def area(w, h:", "seed.syntax-error"),
        (GOOD.replace("return w * h", "return"), "seed.no-return"),
        (GOOD.replace("return w * h", "def inner():\n        return 1"), "seed.no-return"),
        (GOOD.replace("w * h", "w * SCALE"), "seed.unresolved-name"),
        (GOOD.replace("w * h", "w * h  # a debug value"), "seed.forbidden-word"),
        (GOOD.replace("return", "import os\n    return"), "seed.forbidden-import"),
        (GOOD.replace("return", "x = 1\n    " * 151 + "return"), "seed.too-long"),
        (GOOD.replace("(w, h)", "()").replace("w * h", "6"), "seed.no-argument"),
        (GOOD.replace("w * h", "area(w, h - 1) + w"), None),
        (GOOD.replace("w * h", "[x * h for x in range(w)]"), None),
    ],
)
def test_each_static_rule_drops_what_it_names(code: str, rule: str | None) -> None:
    assert dropped(code) == rule


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("def f(x, x):\n    return x\n", id="duplicate argument"),
        pytest.param("def f(x):\n    nonlocal y\n    return x\n", id="orphan nonlocal"),
        pytest.param("def f(x):\n    return x\n    global x\n", id="parameter declared global"),
        pytest.param("def f(x):\n    return await x\n", id="await outside async"),
        pytest.param("def f(x):\n    from math import *\n    return x\n", id="star import inside"),
        pytest.param("def f(x):\n    break\n    return x\n", id="break outside a loop"),
        pytest.param("def f(x):\n    return x\nreturn 1\n", id="return outside"),
        pytest.param("def f(x):\n    return x, *x = 1\n", id="no statement"),
        pytest.param("def f(x):\n    return x\0\n", id="null byte"),
        pytest.param("def f(x):\n    return " + "(" * 5000 + "x" + ")" * 5000, id="nested brackets"),
        pytest.param("def f(x):\n    return " + "-" * 50000 + "x", id="nested signs"),
        pytest.param("def f(x):\n    return " + "9" * 5000, id="digits beyond the limit"),
        pytest.param("def f(x):\n    __debug__ = x\n    return x\n", id="assignment to __debug__"),
        pytest.param("def f(x):\n    return x if x\n", id="half an expression"),
        pytest.param("", id="nothing"),
        pytest.param("# a comment\n", id="a comment alone"),
    ],
)
def test_what_does_not_compile_is_a_syntax_error_and_no_crash(code: str) -> None:
    assert dropped(code) == "seed.syntax-error"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(GOOD.replace("w * h", " + ".join(["w"] * 5000)), id="long sum"),
        pytest.param(GOOD.replace("w * h", "w" + ".real" * 10_000), id="long chain"),
        pytest.param(
            "def f(x):\n    " + "el".join(f"if x == {n}:\n        return {n}\n    " for n in range(3000)), id="elif"
        ),
    ],
)
def test_long_code_gets_a_verdict(code: str) -> None:
    assert dropped(code) in (None, "seed.syntax-error", "seed.too-long")


def test_a_star_import_of_a_known_module_resolves_its_names_alone() -> None:
    code = GOOD.replace("w * h", "floor(w * h)")
    assert dropped(code, ("from math import *",)) is None
    assert dropped(code, ("from string import *",)) == "seed.unresolved-name"
    assert dropped(code.replace("floor", "OrderedDict"), ("from collections import *",)) is None
    assert dropped(code, ("from math import *", "from string import *")) is None


@pytest.mark.parametrize("module", ["numpy", ".geometry", "os", "antigravity"])
def test_a_star_import_of_another_module_resolves_nothing(module: str) -> None:
    assert dropped(GOOD.replace("w * h", "floor(w * h)"), (f"from {module} import *",)) == "seed.unresolved-name"


def test_a_name_that_an_import_defines_is_resolved() -> None:
    code = GOOD.replace("w * h", "math.floor(w * h)")
    assert dropped(code) == "seed.unresolved-name"
    assert dropped(code, ("import math",)) is None
    assert dropped(code.replace("math", "sys"), ("import sys",)) == "seed.forbidden-import"


@pytest.fixture
def humaneval(tmp_path: Path) -> Path:
    doc = '    """ Stretch every number of the list by the k given factors.\n    >>> stretch([], 1)\n    """\n'
    solution = "    return [number * k for number in xs if number is not None]\n"
    row = {"task_id": "Bench/7", "prompt": "def stretch(xs, k):\n" + doc, "canonical_solution": solution}
    with gzip.open(tmp_path / "bench.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    return tmp_path


def test_benchmark_text_is_found_whatever_its_white_space(humaneval: Path) -> None:
    texts = benchmarks.load(humaneval)
    assert texts.sha256
    assert texts.find("A task: Stretch every  number\nof the list by the k given factors. Now!") == "Bench/7"
    assert texts.find("def f(xs, k):\n  return  [number * k for number in xs if number is not None]") == "Bench/7"
    assert texts.find("Stretch every number") is None
    stolen = "def f(xs, k):\n    'd'\n    return [number * k for number in xs if number is not None]"
    assert dropped(stolen, texts=texts) == "seed.benchmark-text"


def test_a_damaged_or_missing_benchmark_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        benchmarks.load(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"no \.jsonl"):
        benchmarks.load(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n{"prompt"')
    with pytest.raises(ConfigurationError, match=r"a\.jsonl, line 2"):
        benchmarks.load(tmp_path)
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(ConfigurationError, match=r"b\.jsonl\.gz"):
        benchmarks.load(tmp_path / "b.jsonl.gz")


def test_row_rules_name_what_they_drop() -> None:
    def rule(text: str) -> str | None:
        drop = rows.row_drop(text, "def f(x): return x", NONE)
        assert drop is None or drop.rule in rows.RULES
        return drop.rule if drop else None

    assert rule("fine") is None
    assert rule("# TODO later") == "row.placeholder"
    assert rule("raise NotImplementedError") == "row.placeholder"


def test_a_long_instruction_is_dropped() -> None:
    assert rows.instruction_drop("word " * 200, max_words=200, benchmarks=NONE) is None
    drop = rows.instruction_drop("word " * 201, max_words=200, benchmarks=NONE)
    assert drop is not None
    assert drop.rule == "instruction.too-long"


def test_tests_are_carried_only_when_short_and_unmentioned() -> None:
    assert rows.can_carry_tests("Write f.", "assert f(1)\n\nassert f(2)")
    assert not rows.can_carry_tests("Write f.", "\n".join(["assert f(1)"] * 6))
    assert not rows.can_carry_tests("Write f and test it.", "assert f(1)")
    assert not rows.can_carry_tests("Write f, for example so.", "assert f(1)")


SORTING = "Sort the numbers by their absolute value and return a new list; equal ones keep their order, always."
PARSING = "Parse a line of comma separated fields, where quotes protect commas, and return the list of fields found."


def row(name: str, instruction: str = SORTING, response: str = "", code: str = "") -> Row:
    return Row(name, instruction, response or f"answer of {name} " * 3, code or f"def {name}():\n    return {name!r}")


def test_each_kind_of_duplicate_is_named_with_its_original() -> None:
    kept = RowDuplicates(0.7)
    assert kept.offer(row("one", code="class A:\n    pass\ndef f():\n    pass")) is None
    same = kept.offer(row("two", instruction=SORTING.replace(" ", "  ")))
    assert same is not None
    assert (same.rule, same.duplicate_of) == ("dedup.instruction", "one")
    near = kept.offer(row("three", instruction=SORTING + " Please."))
    assert near is not None
    assert near.rule == "dedup.near-instruction"
    names = kept.offer(row("four", PARSING, code="def f():\n    return 4"))
    assert names is not None
    assert names.rule == "dedup.function-names"
    classes = kept.offer(row("five", PARSING, code="class A:\n    x = 5"))
    assert classes is not None
    assert classes.rule == "dedup.class-names"
    assert kept.offer(row("six", PARSING)) is None


def test_a_dropped_row_is_no_original() -> None:
    kept = RowDuplicates(0.7)
    assert kept.offer(row("one")) is None
    assert kept.offer(row("two", code="def other():\n    pass")) is not None
    assert kept.offer(row("three", PARSING, code="def other():\n    pass")) is None


def test_comments_and_docstrings_do_not_hide_a_copy() -> None:
    code = 'def f(x):\n    """Doc."""\n    # why\n    return x'
    assert bare_source(code) == "def f(x):\n    return x"
    assert read(code).key == read("def f(x):\n    return  x").key


def test_answers_without_code_are_not_duplicates_of_each_other() -> None:
    kept = RowDuplicates(0.7)
    assert kept.offer(row("one", SORTING, "Use the sort of your language's library.", code=" ")) is None
    assert kept.offer(row("two", PARSING, "const square = x => x * x;", code=" ")) is None
    assert kept.offer(row("three", "Say hello.", "Hello there.", code="# nothing but a comment")) is None


def test_near_duplicates_report_the_first_and_leave_strangers_alone() -> None:
    near = NearDuplicates(0.5)
    near.add("a", SORTING)
    near.add("b", SORTING + " And so on.")
    found = near.find(SORTING)
    assert found == ("a", 1.0)
    assert near.find(PARSING) is None


def test_tests_in_an_instruction_keep_their_lines_and_their_fence() -> None:
    tests = 'TEXT = """\n````\n"""\nassert f(TEXT) == "\x0c\u2028"\n'
    shown = rows.with_tests("Write f.", tests)
    assert shown == f"Write f.\n\nYour code should pass these tests:\n\n`````python\n{tests}`````"
    assert rows.with_tests("Write f.", "assert f(1)\n").endswith("```python\nassert f(1)\n```")
    assert rows.can_carry_tests("Write f.", "assert f('\x0c\x85\u2028\u2029\x1c\x1d\x1e')\n")
    assert not rows.can_carry_tests("Write f.", "assert f(1)\r\n" * 6)


@pytest.mark.parametrize(
    ("one", "two", "rule"),
    [
        ("def is_prime(n):\n    return n in (2, 3)", "def isPrime(m):\n    yield m", "dedup.function-names"),
        ("def HTTPGet(u):\n    return u", "def http_get(url):\n    yield url", "dedup.function-names"),
        ("class My_Stack:\n    x = 1", "class MyStack:\n    y = 2", "dedup.class-names"),
        ("def f(x):\n    return x - 1", 'def g(x):\n    """D."""\n    # c\n    return x-1  # d', "dedup.code"),
        ("def f(x):\n    return f(x - 'a')", 'def g(x):\n    return g(x - "a")', "dedup.code"),
        ("class A:\n    def m(self):\n        return A()", "class B:\n\n  def m(self):\n    return B()", "dedup.code"),
        ("def add(a, b):\n    return a + b", "def subtract(a, b):\n    return a - b", None),
        ("def order(x):\n    return x.sort()", "def sort(x):\n    return x.sort()", "dedup.code"),
        ("def f(x):\n    return x.f()", "def g(x):\n    return x.g()", None),
        ("def f(x):\n    return 'f'", "def g(x):\n    return 'g'", None),
    ],
)
def test_copies_that_differ_in_names_comments_and_layout(one: str, two: str, rule: str | None) -> None:
    kept = RowDuplicates(0.7)
    assert kept.offer(row("one", SORTING, code=one)) is None
    drop = kept.offer(row("two", PARSING, code=two))
    assert (drop.rule if drop else None) == rule


def test_case_alone_makes_no_other_instruction() -> None:
    kept = RowDuplicates(0.7)
    assert kept.offer(row("one")) is None
    drop = kept.offer(row("two", SORTING.upper()))
    assert drop is not None
    assert drop.rule == "dedup.instruction"
    drop = kept.offer(row("three", "Please! " + SORTING.title()))
    assert drop is not None
    assert drop.rule == "dedup.near-instruction"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("x = " + " + ".join(["1"] * 5000), id="a sum of 5,000 terms"),
        pytest.param("x = a" + ".b" * 10_000, id="a chain of 10,000 attributes"),
        pytest.param("x = " + "(" * 3000 + ")" * 3000, id="3,000 brackets"),
        pytest.param("x = " + "9" * 10_000, id="10,000 digits"),
        pytest.param("def f(:\n  '''", id="no Python"),
        pytest.param("x = 1\0", id="a null byte"),
        pytest.param("if x:\n        y\n    z", id="an indent that fits nothing"),
        pytest.param("x = '\\d'", id="an invalid escape"),
        pytest.param("def f(x: 'int'):\n    y: 'str'\n    return x", id="quoted annotations"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_any_code_can_be_compared(code: str) -> None:
    kept = RowDuplicates(0.7)
    assert kept.offer(row("one", SORTING, code=code)) is None
    drop = kept.offer(row("two", PARSING, code=code + "\n"))
    assert drop is not None
    assert drop.rule == "dedup.code"


def test_a_quoted_annotation_is_no_docstring() -> None:
    assert bare_source("def f(x):\n    y: 'str'\n    return x") == "def f(x):\n    y: 'str'\n    return x"
    assert "Doc." not in bare_source("def f(x): 'Doc.'; return 'x'")


@pytest.mark.parametrize("threshold", [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_bands_follow_the_threshold(threshold: float) -> None:
    bands, width = bands_for(threshold)
    assert bands * width <= PERMUTATIONS
    assert 1 - (1 - threshold**width) ** bands >= 0.99


def test_where_collisions_join_the_bands_are_those_of_the_paper() -> None:
    assert bands_for(0.7, BAND_COLLISION) == (25, 10)


@pytest.mark.parametrize("strategy", ["similarity", BAND_COLLISION])
def test_copies_are_found_among_many_texts(strategy: str) -> None:
    near = NearDuplicates(0.7, strategy)
    texts = [" ".join(f"word{number}x{place}" for place in range(40)) for number in range(200)]
    for number, text in enumerate(texts):
        assert near.find(text) is None
        near.add(str(number), text)
    for number, text in enumerate(texts):
        assert near.find(text.upper()) == (str(number), 1.0)


def test_what_collides_with_a_dropped_text_falls_where_collisions_join() -> None:
    words = [f"w{number}" for number in range(200)]
    texts = [" ".join(words[start : start + 100]) for start in range(0, 100, 4)]  # like their neighbours alone
    assert len(shingles(texts[0]) & shingles(texts[-1])) < 10

    def kept(strategy: str) -> list[int]:
        near, numbers = NearDuplicates(0.7, strategy), []
        for number, text in enumerate(texts):
            if found := near.find(text):
                near.drop(found[0], text)
            else:
                near.add(str(number), text)
                numbers.append(number)
        return numbers

    assert kept(BAND_COLLISION) == [0]
    assert len(kept("similarity")) > 3


def test_a_dropped_row_joins_by_the_text_that_it_fell_for_alone() -> None:
    kept = RowDuplicates(0.7, BAND_COLLISION)
    answer = " ".join(f"answer{number}" for number in range(60))
    assert kept.offer(row("one", SORTING, answer)) is None
    fell = kept.offer(row("two", PARSING, answer + " again"))
    assert fell is not None
    assert (fell.rule, fell.duplicate_of) == ("dedup.near-response", "one")
    assert kept.offer(row("three", PARSING, "Another answer to the same instruction, which gets its chance.")) is None
