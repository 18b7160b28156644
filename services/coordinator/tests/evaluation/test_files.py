"""Benchmark files: recognized by content; damaged ones are refused with file, line and field."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from codealign.common.errors import CodeAlignError, FailedPrecondition, NotFound
from codealign.coordinator.evaluation import benchmarks, hub
from codealign.coordinator.evaluation.files import Row
from codealign.coordinator.evaluation.problems import CallTests, CheckTests


def plus(number: int, **changes: Any) -> dict[str, Any]:
    """Return a row in EvalPlus' layout."""
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "base_input": [[1], [2]],
        "plus_input": [[3]],
        "atol": 0,
        "contract": "",
    } | changes


def check(number: int, **changes: Any) -> dict[str, Any]:
    """Return a row in HumanEval's layout."""
    given = {name: value for name, value in plus(number).items() if name in ("task_id", "prompt", "entry_point")}
    tests = {"canonical_solution": "    return x\n", "test": "def check(candidate):\n    assert candidate(1) == 1\n"}
    return given | tests | changes


def write(path: Path, *rows: Any) -> Path:
    text = "".join(row if isinstance(row, str) else f"{json.dumps(row)}\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def refused(name: str, data: Path, error: type[CodeAlignError] = FailedPrecondition) -> str:
    with pytest.raises(error) as caught:
        benchmarks.load(name, data)
    return str(caught.value)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: hub.Source) -> list[Row]:
        raise hub.Unreachable("ConnectionError: no network")

    monkeypatch.setattr(hub, "rows", away)


def test_both_layouts_are_found_by_their_content(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl.gz", plus(0), plus(1))
    write(tmp_path / "two.jsonl", check(0, task_id="MbppEval/7"))
    write(tmp_path / "other.jsonl", {"text": "no benchmark"})
    base, whole = benchmarks.load("humaneval", tmp_path), benchmarks.load("humaneval+", tmp_path)
    (first, *_), (second, *_) = base.problems, whole.problems
    assert isinstance(first.tests, CallTests)
    assert isinstance(second.tests, CallTests)
    assert (first.tests.inputs, second.tests.inputs) == ([[1], [2]], [[1], [2], [3]])
    assert base.sha256 != whole.sha256
    assert isinstance(benchmarks.load("mbpp", tmp_path).problems[0].tests, CheckTests)


def test_evalplus_layout_is_preferred_and_a_file_alone_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", check(0))
    assert isinstance(benchmarks.load("humaneval", tmp_path / "a.jsonl").problems[0].tests, CheckTests)
    write(tmp_path / "b.jsonl", plus(0))
    assert isinstance(benchmarks.load("humaneval", tmp_path).problems[0].tests, CallTests)


def test_two_files_of_one_benchmark_are_refused(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, plus(0))
    told = refused("humaneval+", tmp_path)
    assert "a.jsonl and" in told
    assert "keep one" in told


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"entry_point": "f("}, "line 2, field 'entry_point': must be a function name"),
        ({"base_input": "[]"}, "line 2, field 'base_input': must be a list of argument lists, is str"),
        ({"plus_input": [[1], 2]}, "line 2, field 'plus_input[1]': must be a list of arguments, is int"),
        ({"atol": -1}, "line 2, field 'atol': must be a finite non-negative number, is -1"),
        ({"atol": math.inf}, "line 2, field 'atol': must be a finite non-negative number, is inf"),
        ({"atol": 10**400}, "line 2, field 'atol': must be a finite non-negative number, is 1000"),
        ({"prompt": "def f(x): \ud800"}, "line 2, field 'prompt': contains half of a surrogate pair"),
        (
            {"task_id": "Mbpp/124", "base_input": [[10**400, 1]]},
            "line 2, field 'base_input[0]': does not have the form of this problem's inputs",
        ),
        ({"task_id": "HumanEval/0"}, "line 2, field 'task_id': duplicate problem HumanEval/0"),
        ({"base_input": [], "plus_input": []}, "line 2, field 'base_input': must have 1 to 5000 inputs, has 0"),
        (
            {"task_id": "Mbpp/106", "base_input": [[1]]},
            "line 2, field 'base_input[0]': does not have the form of this problem's inputs",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    file = write(tmp_path / "a.jsonl", plus(0), plus(1, **row))
    found = refused("humaneval+", tmp_path)
    assert str(file) in found
    assert told in found


@pytest.mark.parametrize("field", ["prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    damaged = plus(1)
    del damaged[field]
    write(tmp_path / "a.jsonl", plus(0), damaged)
    assert f"a.jsonl, line 2, field '{field}': is missing" in refused("humaneval+", tmp_path)


def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", *(plus(number) for number in range(2000)))
    file.write_bytes(file.read_bytes()[:-200])
    assert "a.jsonl.gz, after line" in refused("humaneval", tmp_path)
    file.write_bytes(b"not gzip")
    assert "a.jsonl.gz, after line 0: cannot be read" in refused("humaneval", tmp_path)
    file.unlink()
    write(tmp_path / "a.jsonl", plus(0), '{"task_id": "HumanEval/1", \n')
    assert "a.jsonl, line 2: invalid JSON" in refused("humaneval", tmp_path)
    write(tmp_path / "a.jsonl", plus(0), "[1]\n")
    assert "a.jsonl, line 2: must be a JSON object" in refused("humaneval", tmp_path)
    (tmp_path / "a.jsonl").write_text("")
    assert "a.jsonl: is empty" in refused("humaneval", tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b'{"task_id": "\xff"}\n')
    assert "a.jsonl, after line 0: cannot be read" in refused("humaneval", tmp_path)


def test_without_file_and_hub_the_error_says_which_file_to_give(tmp_path: Path, no_hub: None) -> None:
    write(tmp_path / "a.jsonl", check(0))
    told = refused("humaneval+", tmp_path, NotFound)
    assert "provide EvalPlus' HumanEvalPlus.jsonl.gz" in told
    assert "evalplus/humanevalplus cannot be loaded from the hub: ConnectionError: no network" in told
    with pytest.raises(NotFound, match=r"no local file: provide .* with --benchmarks"):
        benchmarks.load("mbpp+", None)
    with pytest.raises(FailedPrecondition, match="does not exist"):
        benchmarks.load("mbpp+", tmp_path / "none")


def test_the_hubs_tables_become_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = "def check(candidate):\n    inputs = [[(1, 2)], [(3,)]]\n    assertion(candidate(*inputs[0]), 3, 1e-06)\n"
    columns = {
        "task_id": 5,
        "prompt": "Add up.",
        "code": "def helper(x):\r\n  return x\r\ndef total(x):\r\n  return sum(x)",
        "test_list": ["assert total((1, 2)) == 3", "assert total(()) == 0"],
        "test_imports": ["import math"],
        "test": tests,
    }
    monkeypatch.setattr(hub, "_table", lambda _: iter([Row("hub", 1, columns)]))
    (problem,) = benchmarks.load("mbpp", None).problems
    assert (problem.problem_id, problem.entry_point) == ("Mbpp/5", "total")
    assert problem.prompt == '"""\nAdd up.\nassert total((1, 2)) == 3\n"""\n'
    assert isinstance(problem.tests, CheckTests)
    compile(problem.tests.program, "check", "exec")
    (problem,) = benchmarks.load("mbpp+", None).problems
    assert isinstance(problem.tests, CallTests)
    assert problem.tests.inputs == [[{"$": "tuple", "of": [1, 2]}], [{"$": "tuple", "of": [3]}]]
    assert problem.tests.atol == 1e-6


def test_another_benchmark_is_added_by_registering_it(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *(plus(number, task_id=f"Tiny/{number}") for number in range(10)))
    adapter = benchmarks.PublishedBenchmark("tiny-for-a-test", "tiny", ("base", "plus"), "tiny.jsonl")
    benchmarks.register(adapter)
    found = benchmarks.load("tiny-for-a-test", tmp_path)
    assert [problem.problem_id for problem in found.spread(3)] == ["Tiny/0", "Tiny/3", "Tiny/6"]
    assert found.spread(0) == found.spread(99) == found.problems
    with pytest.raises(ValueError, match="already"):
        benchmarks.register(adapter)
    with pytest.raises(NotFound, match=r"provide tiny\.jsonl"):
        benchmarks.load("tiny-for-a-test", None)
