"""JSON output without terminal control characters, and tables that are never cut off."""

from __future__ import annotations

import io
import json
import sys

import pytest
from rich.console import Console
from rich.table import Table

from codealign.cli.terminal import print_json, whole

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


@pytest.mark.parametrize("width", [24, 40, 200])
def test_a_table_folds_what_is_too_long_and_cuts_nothing(width: int) -> None:
    table = Table("run", "model", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    table.add_row("ab" * 6, "organisation/a-model-with-a-long-name")
    file = io.StringIO()
    Console(file=file, width=width, soft_wrap=True).print(whole(table))
    text = file.getvalue()
    assert "…" not in text
    assert sorted("".join(text.split())) == sorted("runmodel" + "ab" * 6 + "organisation/a-model-with-a-long-name")
