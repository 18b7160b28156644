"""The rules for seeds and rows, benchmark texts, duplicates."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import ConfigurationError
from codealign.coordinator.rules import benchmarks, rows, seeds
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import NearDuplicates, Row, RowDuplicates, bare_code

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
    assert bare_code(code) == bare_code("def f(x):\n    return  x")


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
