"""JSON for people and programs: real characters, and none that steers the terminal."""

from __future__ import annotations

import io
import json
import sys

import pytest

from codealign.cli.terminal import print_json

VALUE = {"text": "größer 🙂", "hostile": "\x1b[2J\x7f\x9b31m\u202edesrever\u2028 \x00", "number": 1}


def printed(encoding: str, monkeypatch: pytest.MonkeyPatch) -> str:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding, write_through=True))
    print_json(VALUE)
    return output.getvalue().decode(encoding)


def test_json_holds_the_characters_that_people_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed("utf-8", monkeypatch)
    assert "größer 🙂" in text
    assert json.loads(text) == VALUE
    assert not set(text) & set("\x1b\x7f\x9b\u202e\x00")


def test_json_suits_an_output_that_has_ascii_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed("ascii", monkeypatch)
    assert json.loads(text) == VALUE
