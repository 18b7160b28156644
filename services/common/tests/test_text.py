"""Lines as Python counts them, and messages for unknown names."""

from __future__ import annotations

import ast
import random

from codealign.common.text import lines, unknown

NO_ENDINGS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def test_lines_end_where_python_says() -> None:
    assert lines("a\nb\r\nc\rd") == ["a", "b", "c", "d"]
    assert lines("a\n\n\r\r\n") == ["a", "", "", ""]
    assert lines("") == []
    assert lines(f"a{NO_ENDINGS}b\n") == [f"a{NO_ENDINGS}b"]


def test_lines_with_their_endings_are_the_text() -> None:
    dice = random.Random(1)
    for _ in range(200):
        text = "".join(dice.choices(f"ab \n\r{NO_ENDINGS}", k=30))
        assert "".join(lines(text, keepends=True)) == text
        assert [line.rstrip("\r\n") for line in lines(text, keepends=True)] == lines(text)


def test_a_line_number_of_pythons_is_an_index() -> None:
    text = f"a = '{NO_ENDINGS[1:]}'\r\n# {NO_ENDINGS}\r\nb = 1\n\x0c\nc = 2\r"
    for node in ast.parse(text).body:
        assert lines(text)[node.lineno - 1].startswith(ast.unparse(node)[:3])


def test_an_unknown_name_is_told_with_the_nearest_and_all_valid_ones() -> None:
    assert unknown("stage", "respones", ["b", "responses", "b"]) == (
        "unknown stage 'respones'; did you mean 'responses'? known: b, responses"
    )
    assert unknown("stage", "x", ["concepts"]) == "unknown stage 'x'; known: concepts"
    assert unknown("stage", "x", []) == "unknown stage 'x'; known: none"
