"""Answers as models write them: each is parsed, and the result passes its tests in real gVisor."""

from __future__ import annotations

from typing import Any

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.coordinator.reading import parsing
from services.sandbox.tests import conftest
from services.sandbox.tests.conftest import name_of, running
from tests.cases.files import cases

CASES = cases("answers.jsonl")
"""Completions by name, with the expected `code` and `tests` where given."""
REJECTIONS = cases("rejections.jsonl")
_SECONDS = 240.0


def _read(case: dict[str, Any]) -> parsing.ParsedResponse:
    read = parsing.response(case["completion"], cut_off=False)
    assert isinstance(read, parsing.ParsedResponse), read
    return read


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pb.Result]:
    """Results of all answers, by name."""
    requests = []
    for name, case in CASES.items():
        read = parsing.response(case["completion"], cut_off=False)
        if isinstance(read, parsing.ParsedResponse):
            request = conftest.request(read.code, read.tests, request_id=name)
            requests.append(pb.ExecuteStreamRequest(request=request))
    with running(tmp_path_factory.mktemp("answers")) as gateway:
        gateway.wait_ready()
        answers = gateway.stub.ExecuteStream(iter(requests), timeout=_SECONDS)
        return {answer.result.request_id: answer.result for answer in answers}


@pytest.mark.gvisor
@pytest.mark.parametrize("name", CASES)
def test_a_right_answer_passes(results: dict[str, pb.Result], name: str) -> None:
    _read(CASES[name])
    assert name_of(results[name]) == "PASSED", results[name]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "code" in case])
def test_what_is_executed_is_what_was_written(name: str) -> None:
    read = _read(CASES[name])
    assert (read.code, read.tests) == (CASES[name]["code"], CASES[name]["tests"])


@pytest.mark.parametrize("name", CASES)
def test_the_published_answer_gives_the_executed_code(name: str) -> None:
    read = _read(CASES[name])
    assert read.answer in CASES[name]["completion"]
    line_end = "" if read.answer.endswith(("\n", "\r")) else "\n"
    again = parsing.response(
        f"{read.answer}{line_end}</answer>\n<tests>\n`````python\n{read.tests}\n`````", cut_off=False
    )
    assert isinstance(again, parsing.ParsedResponse), again
    assert again.code == read.code


@pytest.mark.parametrize("name", REJECTIONS)
def test_what_cannot_be_read_says_what_was_seen(name: str) -> None:
    case = REJECTIONS[name]
    read = parsing.response(case["completion"], cut_off=case.get("cut_off", False))
    assert isinstance(read, parsing.Rejected), read
    assert read.reason in parsing.REASONS
    assert read.reason == case["reason"]
    assert case["detail"] in read.detail


def test_hostile_texts_take_time_in_proportion_to_their_length() -> None:
    """Each would take hours if a fence were searched for from every other fence."""
    for line in ("```python\n'''\n", "```text\n</answer>\n", '```\n"""\n~~~\n', "> - ```md\n", "`" * 40 + "python\n"):
        text = line * (300_000 // len(line))
        assert isinstance(parsing.response(text, cut_off=False), parsing.Rejected)
    for line in ("a" + " " * 99, "`" * 99, "- " * 50, "> " * 50, "\\'" * 50, "<tests" * 20):
        text = line * 3000
        assert isinstance(parsing.response(f"{text}\n```python\n{text}\n", cut_off=False), parsing.Rejected)


def test_code_that_breaks_pythons_parser_is_read_all_the_same() -> None:
    for code in ("(" * 5000, "-" * 100_000 + "1", "x = '\0'", "if 1 is 1: '\\d'", "a." * 50_000 + "a", "x = \ud800"):
        text = f"```python\n{code}\n```\n\n```python\nx = 1\n```\n</answer>\n<tests>\n```python\nassert x == 1\n```\n"
        read = parsing.response(text, cut_off=False)
        assert isinstance(read, parsing.ParsedResponse)
        assert "x = 1\n" in read.code


def test_of_very_many_blocks_all_that_compile_are_the_program() -> None:
    """Pairwise comparison would take minutes."""
    blocks = "".join(f"```python\nx{number} = 1\n```\n" for number in range(5000))
    read = parsing.response(
        f"{blocks}```python\nx y\n```\n</answer>\n<tests>\n```python\nassert x0\n```\n", cut_off=False
    )
    assert isinstance(read, parsing.ParsedResponse)
    assert "x0 = 1\n" in read.code
    assert "x4999 = 1\n" in read.code
    assert "x y" not in read.code
