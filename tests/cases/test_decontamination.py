"""Decontamination: texts that contain a benchmark task in any form, and texts that do not."""

from __future__ import annotations

import ast
import gzip
import html
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codealign.cli.seeds import read
from codealign.coordinator.rules import benchmarks
from codealign.coordinator.rules.rows import instruction_drop, row_drop

HERE = Path(__file__).parent
CASES = [json.loads(line) for line in (HERE / "decontamination.jsonl").read_text(encoding="utf-8").splitlines()]
NEAREST_CHECKOUT = HERE.parents[1].parent / "shared" / "data"

FORMS: dict[str, Callable[[str], str]] = {
    "embedded": lambda text: f"Here is a task.\n\n{text}\n\nThank you.",
    "upper-case": lambda text: f"Task: {text.upper()} END",
    "wrapped": lambda text: "First.\n" + textwrap.fill(" ".join(text.split()), 40) + "\nLast.",
    "quoted": lambda text: "He wrote:\n" + "\n".join(f"> {line}" for line in text.split("\n")) + "\nand more",
    "commented out": lambda text: "x = 1\n" + "\n".join(f"    # {line}" for line in text.split("\n")) + "\ny = 2",
    "wrapped in a comment": lambda text: (
        "x = 1\n" + textwrap.fill(" ".join(text.split()), 40, initial_indent="// ", subsequent_indent="// ") + "\ny = 2"
    ),
    "numbered": lambda text: "\n".join(f"{number:3}. {line}" for number, line in enumerate(text.split("\n"), 1)),
    "in a console": lambda text: ">>> " + "\n... ".join(text.split("\n")),
    "in HTML": lambda text: "<p class='task'>" + html.escape(text).replace("\n", "<br/>\n") + "</p>",
    "escaped twice": lambda text: html.escape(html.escape(text)),
    "in JSON": lambda text: json.dumps({"a": text}),
    "as a literal": lambda text: f"task = {text!r}",
    "zero-width": lambda text: f"See: {chr(0x200B).join(re.findall('.{1,3}', text, re.DOTALL))} .",
}
FURTHER_FORMS: dict[str, Callable[[str], str]] = {
    "numbered without signs": lambda text: "\n".join(
        f"{number:>4} {line}" for number, line in enumerate(text.split("\n"), 1)
    ),
    "numbered by anchors": lambda text: "\n".join(
        f"L{number}: {line}" for number, line in enumerate(text.split("\n"), 1)
    ),
    "in a diff": lambda text: "@@ -0,0 +1,9 @@\n" + "\n".join(f"+{line}" for line in text.split("\n")),
    "bulleted": lambda text: "\n".join(f"- {line}" for line in text.split("\n")),
    "in a table": lambda text: "| task |\n|---|\n" + "\n".join(f"| {line} |" for line in text.split("\n")),
    "in IPython": lambda text: "In [12]: " + "\n    ...: ".join(text.split("\n")),
    "concatenated": lambda text: " +\n".join(json.dumps(f"{line}\n") for line in text.split("\n")),
    "with other dashes": lambda text: text.replace("-", "\u2013"),
}
"""Forms that are tried with every tenth task."""


@pytest.fixture(scope="module")
def texts() -> benchmarks.BenchmarkTexts:
    return benchmarks.load(HERE / "benchmarks")


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_a_benchmarks_text_is_found_in_any_form(case: dict[str, str], texts: benchmarks.BenchmarkTexts) -> None:
    assert ("found" if texts.find(case["text"]) else "not found") == case["expected"]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES if case["expected"] == "found"])
def test_an_instruction_and_a_row_that_hold_one_fall(case: dict[str, str], texts: benchmarks.BenchmarkTexts) -> None:
    instruction = instruction_drop(case["text"], max_words=200, benchmarks=texts)
    assert instruction is not None
    assert instruction.rule == "instruction.benchmark-text"
    row = row_drop(f"Here you are:\n{case['text']}", "x = 1", texts)
    assert row is not None
    assert row.rule == "row.benchmark-text"


def test_the_task_is_named_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    lines = [
        json.dumps({"task_id": name, "text": "Write a function to sort a list of elements.", "code": ""})
        for name in ("B/2", "A/1")
    ]
    for number, order in enumerate((lines, lines[::-1])):
        (tmp_path / f"{number}.jsonl").write_text("\n".join(order))
    one, two = (benchmarks.load(tmp_path / f"{number}.jsonl") for number in range(2))
    assert one.sha256 == two.sha256
    assert one.find("write a function to sort a list of elements") == "A/1"
    assert two.find("write a function to sort a list of elements") == "A/1"


def test_short_code_must_agree_in_its_operators(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"task_id": 7, "code": "def power(a, b):\n\treturn a ** b\n"}))
    texts = benchmarks.load(tmp_path)
    assert texts.find("def power(a, b):\n    return a**b") == "a.jsonl, task 7"
    assert texts.find("> def power(a, b):\n>     return a**b") == "a.jsonl, task 7"
    assert texts.find("def power(a, b):\n    return a * b") is None
    assert texts.find("def power(a, b):\n    return a ** bits") is None


# The published benchmarks.


@pytest.fixture(scope="module")
def published() -> Path:
    given = os.environ.get("CODEALIGN_BENCHMARK_DATA")
    folder = Path(given) if given else NEAREST_CHECKOUT
    if not folder.is_dir():
        pytest.skip("no benchmark files: set CODEALIGN_BENCHMARK_DATA to a folder with HumanEval's and MBPP's files")
    return folder


@pytest.fixture(scope="module")
def known(published: Path) -> benchmarks.BenchmarkTexts:
    return benchmarks.load(published)


def rows(folder: Path) -> Iterator[dict[str, str]]:
    for path in sorted(folder.glob("*.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            yield from (json.loads(line) for line in file if line.strip())


def description(prompt: str) -> str:
    tree = ast.parse(prompt if prompt.startswith('"""') else f"{prompt}\n    pass\n")
    strings = [node.value.value for node in ast.walk(tree) if isinstance(node, ast.Expr)
               and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]  # fmt: skip
    return max(strings, key=len)


def signature(prompt: str) -> str:
    tree = ast.parse(f"{prompt}\n    pass\n")
    last = [node for node in tree.body if isinstance(node, ast.FunctionDef)][-1]
    return "\n".join(prompt.split("\n")[last.lineno - 1 : last.body[0].lineno - 1])


@pytest.mark.parametrize("form", [*FORMS, *FURTHER_FORMS])
def test_every_published_description_and_solution_is_found(
    published: Path, known: benchmarks.BenchmarkTexts, form: str
) -> None:
    missed = []
    write = FORMS.get(form) or FURTHER_FORMS[form]
    for row in list(rows(published))[:: 1 if form in FORMS else 10]:
        whole = description(row["prompt"])
        solution = row["canonical_solution"]
        if not row["prompt"].startswith('"""'):
            solution = f"{signature(row['prompt'])}\n{solution}"
        without = re.split(r">>>|\nassert|examples?:|for example", whole, flags=re.IGNORECASE)[0]
        for text in (whole, without.strip(), solution):
            if not known.find(write(text)):
                missed.append((row["task_id"], text))
    assert not missed


def test_functions_of_the_standard_library_are_not(known: benchmarks.BenchmarkTexts) -> None:
    codes = [seed.code for seed in read("stdlib").seeds]
    assert len(codes) > 1500
    assert [(code, task) for code in codes if (task := known.find(code))] == []


def test_a_text_of_backslashes_takes_time_in_proportion_to_its_length(texts: benchmarks.BenchmarkTexts) -> None:
    """It would take minutes if an escape were searched for from each of them."""
    assert texts.find("\\" * 300_000) is None
