"""Parsing time is linear in the length of a model's text, even for adversarial text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.coordinator.evaluation import programs
from codealign.coordinator.pipelines.selfcodealign.instructions import SECTION
from codealign.coordinator.reading import assembly, parsing, python_code, sections
from codealign.coordinator.rules import marks

CHARS = 100_000


def repeated(piece: str, chars: int = CHARS) -> str:
    """Repeat a piece up to about `chars` characters."""
    return piece * (chars // len(piece))


def read_instruction(text: str) -> object:
    completion = inf.Completion(text=text, finish_reason=inf.FINISH_REASON_END_TOKEN)
    return sections.read(completion, SECTION, 8)


def read_response(text: str) -> object:
    return parsing.response(text, cut_off=False)


def read_pair(text: str) -> object:
    return parsing.pair(text)


def calls(work: Callable[[str], object], text: str) -> int:
    """Count the function calls that the work makes, including builtins."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work(text)
    finally:
        sys.setprofile(None)
    return count


def join_with_itself(text: str) -> object:
    return assembly.joined([text, text])


@pytest.mark.parametrize(
    ("work", "piece"),
    [
        pytest.param(read_instruction, "Say </task>\nx\n", id="tags in sentences"),
        pytest.param(join_with_itself, "from __future__ import annotations\n", id="future imports"),
        pytest.param(read_response, "```\nx\n", id="fences"),
        pytest.param(read_pair, "a b c d e\n</task>\n<answer>\n```python\nx\n```\n", id="pairs"),
        pytest.param(read_pair, "Say </task> or <answer> x\n", id="tags of pairs in sentences"),
        pytest.param(read_response, "> ```python\n> x = 1\n", id="quoted fences"),
        pytest.param(python_code.names, f"x = a{'.b' * 200}\n", id="chains, their names"),
        pytest.param(lambda text: programs.clean(text, "f"), f"x = a{'.b' * 200}\n", id="chains of attributes"),
    ],
)
def test_twice_the_text_is_twice_the_work(work: Callable[[str], object], piece: str) -> None:
    half = calls(work, repeated(piece, CHARS // 10))
    assert calls(work, repeated(piece, CHARS // 5)) < 2.5 * half


@pytest.mark.parametrize("deep", [50, 200])
def test_a_chain_of_attributes_costs_no_more_for_each_than_a_short_one(deep: int) -> None:
    def each(parts: int) -> float:
        text = f"x = a{'.b' * parts}\n" * (2_000 // parts)
        return calls(lambda text: programs.clean(text, "f"), text) / 2_000

    assert each(deep) < 1.5 * each(10)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(" " * CHARS + "x", id="white space"),
        pytest.param("<" + " " * CHARS, id="a tag that never is"),
        pytest.param(repeated("</s>") + "x", id="end marks"),
        pytest.param(">" * (CHARS // 3) + "```\n" + ">" * (CHARS // 3) + "x\n", id="quotes"),
        pytest.param("(" * CHARS, id="brackets"),
        pytest.param("x = " + "not " * (CHARS // 4) + "1", id="operators"),
        pytest.param("x = a" + ".b" * (CHARS // 2), id="one chain"),
        pytest.param("`" * CHARS, id="backticks"),
    ],
)
def test_a_hundred_thousand_odd_characters_are_read_or_refused(text: str) -> None:
    wrapped = f"```python\n{text}\n```\n</answer>\n<tests>\n```python\nassert x\n```\n"
    for given in (text, wrapped):
        assert read_response(given)
        assert read_pair(given)
    assert marks.marks_drop(text) is None
    assert read_instruction(text) is not None
    assert programs.clean(text, "f")
    python_code.names(text)


def test_end_marks_go_with_the_white_space_around_them_and_nothing_else() -> None:
    for given, left in (
        ("a \n</s> <|im_end|>\n", "a"),
        ("a </s> b \n", "a </s> b \n"),
        ("a \n", "a \n"),
        (f"<|{'x' * 40}|>", ""),
        (f"<|{'x' * 41}|>", f"<|{'x' * 41}|>"),
    ):
        assert parsing._without_end_marks(given) == left
