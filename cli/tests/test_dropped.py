"""`codealign data dropped`: what a run dropped, and why."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.tests.test_diff import Run
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.commands import dropped
from codealign.cli.main import app

FAILED = sb.Result(verdict=sb.VERDICT_FAILED_ASSERTION, detail="tests line 2")


@pytest.fixture
def run(store: Any) -> Run:
    run = Run(store, "a")
    run.rows(1)
    run.seed(2, "seed.no-return")
    instruction = run.instruction(run.seed(3), "task 3")
    run.reject(instruction, "answer 3", pb.KIND_RESPONSE, "cut-off", "at \x1b[2J 640\ntokens")
    run.judge(run.response(instruction, "answer 4"), FAILED)
    Run(store, "b", version=2).seed(5, "seed.no-argument")
    return run


def command(run: Run, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    @contextlib.asynccontextmanager
    async def services(*_: object, **__: object) -> AsyncIterator[Any]:
        yield run.store

    monkeypatch.setattr(dropped, "services", services)
    return CliRunner().invoke(app, ["data", "dropped", *arguments])


def test_each_dropped_item_of_the_run_has_a_line_with_its_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = command(run, monkeypatch, "a")
    assert result.exit_code == 0, result.output
    told = [line.split("  ", 1) for line in result.output.splitlines()]
    assert [text for _, text in told] == [
        "seed.no-return",
        "cut-off: at �[2J 640 tokens",
        "FAILED_ASSERTION: tests line 2",
    ]
    assert all(any(found.startswith(one) for found in run.store.records) for one, _ in told)


def test_a_reason_or_a_group_of_reasons_is_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = command(run, monkeypatch, "a", "--reason", "seed", "--json").output.splitlines()
    assert json.loads(line)["reason"] == "seed.no-return"
    limited = command(run, monkeypatch, "a", "--limit", "1").output.splitlines()
    assert limited[1:] == ["3 items; 1 shown (--limit)"]


def test_a_reason_that_dropped_nothing_is_told_with_those_that_did(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = command(run, monkeypatch, "a", "--reason", "timed-out")
    assert result.exit_code == 1
    assert "FAILED_ASSERTION 1, cut-off 1, seed.no-return 1" in " ".join(result.output.split())


def test_an_unknown_run_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = command(run, monkeypatch, "nowhere")
    assert result.exit_code == 1
    assert "'nowhere'" in result.output


def outcomes(store: Any, strategy: str, *, chosen: sb.Result) -> tuple[Run, dict[str, str]]:
    """Return a run whose instruction has a row, a failure that a rule dropped, another failure, and a pass."""
    run = Run(store, "c", strategy=strategy)
    instruction = run.instruction(run.seed(1), "task 1")
    answers = {name: run.response(instruction, name) for name in ("row", "other", "failure", "pass")}
    run.row(run.seed(1), instruction, answers["row"], chosen)
    for name, result in (("other", FAILED), ("failure", FAILED), ("pass", sb.Result(verdict=sb.VERDICT_PASSED))):
        run.judge(answers[name], result)
    run.decide(answers["other"], "selection.another-pass-was-chosen")
    return run, {response.id[:12]: name for name, response in answers.items()}


@pytest.mark.parametrize(
    ("strategy", "chosen", "expected"),
    [
        ("everything", FAILED, [("other", "selection.another-pass-was-chosen"), ("failure", "FAILED_ASSERTION")]),
        (
            "failures-only",
            FAILED,
            [
                ("other", "selection.another-pass-was-chosen"),
                ("failure", "FAILED_ASSERTION"),
                ("pass", "PASSED"),
            ],
        ),
        (
            "first-pass",
            sb.Result(verdict=sb.VERDICT_PASSED),
            [
                ("other", "selection.another-pass-was-chosen"),
                ("failure", "FAILED_ASSERTION"),
                ("other", "FAILED_ASSERTION"),
            ],
        ),
    ],
)
def test_a_row_is_not_dropped_whatever_its_verdict(
    store: Any, monkeypatch: pytest.MonkeyPatch, strategy: str, chosen: sb.Result, expected: list[tuple[str, str]]
) -> None:
    run, names = outcomes(store, strategy, chosen=chosen)
    told = [line.split("  ", 1) for line in command(run, monkeypatch, "c").output.splitlines()]
    found = [(names[item], why.partition(":")[0]) for item, why in told]
    assert sorted(found) == sorted(expected)
