"""Titles in YAML: readable for people, and unchanged when parsed."""

from __future__ import annotations

import pytest
import yaml

from codealign.common.text import yaml_quoted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        'says "so"',
        "größer 你好",
        "🙂 rows 🎉",
        "a: b # c - d",
        "true",
        "back\\slash",
        "two\nlines\ttab",
        "odd \x07\x1b\x7f\x85\x9b\u2028\u2029\ufeff\uffff ends",
        "\N{RIGHT-TO-LEFT OVERRIDE}desrever",
    ],
)
def test_yaml_reads_the_text_back(text: str) -> None:
    assert yaml.safe_load(f"pretty_name: {yaml_quoted(text)}\nnext: 1\n") == {"pretty_name": text, "next": 1}
    assert "\n" not in yaml_quoted(text)


def test_what_people_read_stays_as_it_is() -> None:
    assert yaml_quoted("größer 🙂") == '"größer 🙂"'
