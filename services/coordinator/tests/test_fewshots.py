"""The few-shot examples are well-formed and correct, and their tests catch wrong answers."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.mutation import mutants

FOLDER = Path(__file__).parents[1] / "src/codealign/coordinator/pipelines/selfcodealign/few_shots/selfcodealign"
FILES = sorted(FOLDER.glob("*.toml"))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FORBIDDEN = re.compile(r"todo|fixme|bug|your code|notimplemented", re.IGNORECASE)
SENTINEL = "reached the end"
MUTANTS_PER_EXAMPLE = 12

# Runs every program of a JSON list in a namespace of its own and prints which ones failed: by an exception, or by half
# a second of processor time, or five by the clock where it waits. The alarm's exception is no Exception, so that a
# program under test does not swallow it.
DRIVER = """
import json, signal, sys
class Alarm(BaseException):
    pass
def ring(signum, frame):
    raise Alarm
signal.signal(signal.SIGALRM, ring)
signal.signal(signal.SIGVTALRM, ring)
def limit(computes, waits):
    signal.setitimer(signal.ITIMER_VIRTUAL, computes)
    signal.setitimer(signal.ITIMER_REAL, waits)
failed = []
for program in json.load(sys.stdin):
    limit(0.5, 5.0)
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
        limit(0, 0)
        failed.append(False)
    except BaseException:
        limit(0, 0)
        failed.append(True)
print(json.dumps(failed))
"""


def load(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def code_of(path: Path) -> tuple[str, str]:
    """Return the response's code and the tests."""
    example = load(path)["example"]
    [code] = FENCE.findall(example["response"])
    return code, example["tests"]


def python(program: str, stdin: str = "", timeout: float = 60) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def kills(path: Path) -> list[bool]:
    """Return, for mutants spread over the example's code, whether the tests catch each of them."""
    code, tests = code_of(path)
    every = list(mutants(code))
    count = min(len(every), MUTANTS_PER_EXAMPLE)
    chosen = [every[number * len(every) // count] for number in range(count)]
    programs = [f"{program}\n{tests}" for program in [code, *chosen]]
    failed: list[bool] = json.loads(python(DRIVER, json.dumps(programs)))
    assert not failed[0]
    return failed[1:]


def test_the_set_is_balanced() -> None:
    properties = [load(path)["property"] for path in FILES]
    categories = [entry["category"] for entry in properties]
    assert [path.name[:2] for path in FILES] == [f"{number:02d}" for number in range(1, 22)]
    assert categories.count("function") in (10, 11)
    assert categories.count("class") in (5, 6)
    assert categories.count("program") == 5
    for level in ("easy", "medium", "hard"):
        assert sum(entry["difficulty"] == level for entry in properties) in (6, 7, 8)
    openings = [load(path)["example"]["response"].split()[:3] for path in FILES]
    assert len({tuple(words) for words in openings}) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_form(path: Path) -> None:
    document = load(path)
    assert document.keys() == {"property", "example"}
    attributes, example = document["property"], document["example"]
    assert attributes.keys() == {"category", "language", "difficulty", "concepts"}
    assert example.keys() == {"seed", "instruction", "response", "tests"}
    assert attributes["language"] == "Python"
    assert 2 <= len(attributes["concepts"]) <= 5
    assert not any("," in concept for concept in attributes["concepts"])
    assert not FORBIDDEN.search(path.read_text(encoding="utf-8"))
    assert 50 <= len(example["instruction"].split()) <= 200
    assert not re.search(r"test|example", example["instruction"], re.IGNORECASE)
    assert example["response"].count("```") == 2
    assert len(FENCE.findall(example["response"])) == 1
    assert "assert" not in example["response"]
    statements = list(ast.walk(ast.parse(example["tests"])))
    assert sum(isinstance(node, ast.Assert) for node in statements) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_seed_is_a_function_worth_describing(path: Path) -> None:
    tree = ast.parse(load(path)["example"]["seed"])
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert ast.get_docstring(function)
    assert function.args.args
    assert any(isinstance(node, ast.Return) and node.value for node in ast.walk(function))
    assert 6 <= len(ast.unparse(tree).splitlines()) <= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_response_passes_its_tests(path: Path) -> None:
    code, tests = code_of(path)
    assert SENTINEL in python(f"{code}\n{tests}\nprint({SENTINEL!r})", timeout=20)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_wrong_answers_are_caught(path: Path) -> None:
    assert sum(kills(path)) >= 0.6 * len(kills(path))


def test_nearly_all_wrong_answers_are_caught() -> None:
    verdicts = [killed for path in FILES for killed in kills(path)]
    assert len(verdicts) > 5 * len(FILES)
    assert sum(verdicts) >= 0.8 * len(verdicts)
