"""Comparison of two sets of rows: which were added, removed or changed, and why."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.commands import diff
from codealign.cli.diffing import Change, Diff, find_side
from codealign.cli.failures import Failure
from codealign.cli.main import app
from codealign.cli.missing_rows import Side
from codealign.common.records import complete

PASSED = sb.Result(verdict=sb.VERDICT_PASSED)


class Run:
    """A run's records in a store: seeds, instructions, responses, verdicts, rows."""

    def __init__(self, store: Any, name: str, version: int = 1, strategy: str = "") -> None:
        self.store, self.name = store, name
        body = pb.Run(name=name, seed=version, selection=pb.SelectionSettings(strategy=strategy))
        self.record = self._add(pb.Record(kind=pb.KIND_RUN, run=body))
        self.collection = self.record.id
        self.configs = {
            stage: self._add(
                pb.Record(
                    kind=pb.KIND_STAGE_CONFIG,
                    stage_config=pb.StageConfig(name=stage, settings_json=json.dumps({"version": number})),
                )
            ).id
            for stage, number in (("responses", version), ("instructions", 1), ("selection", 1))
        }

    def _add(self, record: pb.Record) -> pb.Record:
        complete(record)
        self.store.add(record, collection=getattr(self, "collection", ""))
        return record

    def seed(self, number: int, *decisions: str) -> pb.Record:
        seed = self._add(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(name=f"f{number}")))
        for rule in decisions:
            self.decide(seed, rule)
        return seed

    def decide(self, record: pb.Record, rule: str, detail: str = "") -> None:
        body = pb.Decision(outcome=pb.Decision.OUTCOME_DROPPED, rule=rule, detail=detail)
        self._add(pb.Record(kind=pb.KIND_DECISION, parents=[record.id, self.record.id], decision=body))

    def completion(self, text: str) -> pb.Record:
        return self._add(pb.Record(kind=pb.KIND_COMPLETION, key=text, completion=pb.Completion(text=text)))

    def instruction(self, seed: pb.Record, text: str) -> pb.Record:
        return self._read(pb.KIND_INSTRUCTION, "instructions", seed, text, instruction=pb.Instruction(text=text))

    def response(self, instruction: pb.Record, text: str, *, key: str = "", answer: str = "") -> pb.Record:
        body = pb.Response(answer=answer or text)
        return self._read(pb.KIND_RESPONSE, "responses", instruction, text, key=key, response=body)

    def reject(self, item: pb.Record, text: str, kind: pb.Kind.ValueType, reason: str, detail: str = "") -> None:
        stage = "responses" if kind == pb.KIND_RESPONSE else "instructions"
        body = pb.Rejection(rejected_kind=kind, reason=reason, detail=detail)
        self._read(pb.KIND_REJECTION, stage, item, text, rejection=body)

    def _read(
        self, kind: pb.Kind.ValueType, stage: str, item: pb.Record, text: str, *, key: str = "", **body: Any
    ) -> pb.Record:
        parents = [item.id, self.completion(text).id]
        config = self.configs[stage]
        return self._add(pb.Record(kind=kind, parents=parents, stage_config_id=config, key=key, **body))

    def judge(self, response: pb.Record, result: sb.Result) -> None:
        self._add(pb.Record(kind=pb.KIND_VERDICT, parents=[response.id], verdict=pb.VerdictBody(result=result)))

    def row(
        self, seed: pb.Record, instruction: pb.Record, response: pb.Record, result: sb.Result = PASSED, **other: Any
    ) -> pb.Record:
        self.judge(response, result)
        line = (("seeds", seed), ("instructions", instruction), ("responses", response))
        example = pb.Example(
            instruction=instruction.instruction.text,
            response=response.response.answer,
            lineage=[pb.LineageStep(stage=stage, record_id=record.id) for stage, record in line],
            **other,
        )
        config = self.configs["selection"]
        return self._add(
            pb.Record(kind=pb.KIND_EXAMPLE, parents=[response.id], stage_config_id=config, example=example)
        )

    def rows(self, *numbers: int) -> dict[int, pb.Record]:
        """Add complete lineages, identical in every run of this version."""
        found = {}
        for number in numbers:
            seed = self.seed(number)
            instruction = self.instruction(seed, f"task {number}")
            found[number] = self.row(seed, instruction, self.response(instruction, f"answer {number}"))
        return found

    @property
    def side(self) -> Side:
        return Side(self.name, self.collection)


async def compared(store: Any, before: Run, after: Run) -> tuple[list[Change], dict[str, Any]]:
    found = Diff(store, before.side, after.side)
    changes = [change async for change in found.changes()]
    return changes, found.summary.as_json()


async def test_the_same_rows_are_the_same(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b")
    before.rows(1, 2, 3)
    after.rows(1, 2, 3)
    changes, summary = await compared(store, before, after)
    assert changes == []
    assert (summary["rows_before"], summary["rows_after"], summary["same"]) == (3, 3, 3)


async def test_rows_are_found_again_by_their_completion_under_a_new_version_of_the_reading(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b", version=2)
    before.rows(1, 2)
    seed = after.seed(1)
    instruction = after.instruction(seed, "task 1")
    after.row(seed, instruction, after.response(instruction, "answer 1", answer="answer 1, cut better"))
    after.rows(2)
    changes, summary = await compared(store, before, after)
    (change,) = changes
    assert (change.kind, change.reason) == ("changed", "responses: version 1 → 2")
    assert change.detail == "response: responses: version 1 → 2"
    assert change.before
    assert change.after
    assert summary["same"] == 1


async def test_a_row_that_went_is_told_by_what_became_of_its_completion(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b", version=2)
    before.rows(*range(1, 8))
    lines = {}
    for number in range(1, 8):
        seed = after.seed(number)
        instruction = after.instruction(seed, f"task {number}")
        lines[number] = instruction
        if number == 1:
            after.reject(instruction, "answer 1", pb.KIND_RESPONSE, "cut-off", "at 640 tokens")
            continue
        response = after.response(instruction, f"answer {number}")
        if number == 2:
            after.judge(response, sb.Result(verdict=sb.VERDICT_TIMED_OUT, detail="after 5 s"))
        elif number == 3:
            after.judge(response, PASSED)
            after.decide(response, "dedup.near-code", "Jaccard 0.8")
        elif number == 4:
            after.judge(response, PASSED)
        elif number == 5:
            after.row(seed, instruction, response)
    changes, summary = await compared(store, before, after)
    told = {(change.reason, change.detail) for change in changes}
    assert {change.kind for change in changes} == {"went"}
    assert told == {
        ("cut-off", "at 640 tokens"),
        ("TIMED_OUT", "after 5 s"),
        ("dedup.near-code", "Jaccard 0.8"),
        ("not chosen", "its verdict is PASSED"),
        ("not chosen", "not executed"),
    }
    assert summary["reasons"]["went"] == {
        "TIMED_OUT": 1,
        "cut-off": 1,
        "dedup.near-code": 1,
        "not chosen": 3,
    }
    assert summary["same"] == 1


async def test_a_row_whose_line_broke_earlier_is_told_by_where(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b")
    before.rows(1, 2, 3, 4, 5)
    after.seed(1, "seed.no-return")
    after.reject(after.seed(2), "task 2", pb.KIND_INSTRUCTION, "empty")
    after.decide(after.instruction(after.seed(3), "task 3"), "instruction.too-long")
    after.instruction(after.seed(4), "task 4")
    changes, _ = await compared(store, before, after)
    assert sorted((change.reason, change.detail) for change in changes) == [
        ("empty", ""),
        ("instruction.too-long", ""),
        ("never drawn", "b did not use its seed"),
        ("never drawn", "instructions exists, but nothing was drawn from it"),
        ("seed.no-return", ""),
    ]


async def test_a_row_that_came_is_told_by_why_it_was_not_there(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b", version=2)
    instruction = before.instruction(before.seed(1), "task 1")
    before.reject(instruction, "answer 1", pb.KIND_RESPONSE, "no-tests-section")
    row = after.rows(1)[1]
    changes, _ = await compared(store, before, after)
    assert changes == [Change("came", "no-tests-section", "", "", row.id)]


async def test_another_answer_to_the_same_task_of_the_same_seed_is_the_same_row_changed(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b")
    before.rows(1, 2)
    seed = after.seed(1)
    instruction = after.instruction(seed, "task 1")
    after.reject(instruction, "answer 1", pb.KIND_RESPONSE, "cut-off", "at 640 tokens")
    after.row(seed, instruction, after.response(instruction, "another answer"), tests_in_instruction=True)
    other = after.seed(9)
    asked = after.instruction(other, "task 2")
    after.row(other, asked, after.response(asked, "answer to another"))
    changes, summary = await compared(store, before, after)
    assert [(change.kind, change.reason) for change in changes] == [
        ("changed", "read from another completion"),
        ("went", "never drawn"),
        ("came", "never drawn"),
    ]
    assert changes[0].detail == "response, tests_in_instruction: that of A: cut-off: at 640 tokens"
    assert summary["same"] == 0


async def test_several_rows_of_one_completion_are_told_apart(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b")
    for run, keys in ((before, ("", "1")), (after, ("", "2"))):
        seed = run.seed(1)
        instruction = run.instruction(seed, "task")
        for key in keys:
            run.row(seed, instruction, run.response(instruction, "both", key=key, answer=f"answer {key}"))
    changes, summary = await compared(store, before, after)
    assert summary["same"] == 1
    told = "response: that of A: parsed differently: its completion was parsed, but yielded no such record"
    assert [(change.kind, change.detail) for change in changes] == [("changed", told)]


async def test_rows_without_lineage_and_of_a_pipeline_that_nobody_knows_are_compared(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b")
    for run, text in ((before, "old"), (after, "new")):
        odd = run._add(pb.Record(kind=99, parents=[run.record.id], key=text))  # type: ignore[arg-type]
        run._add(pb.Record(kind=pb.KIND_EXAMPLE, parents=[odd.id], example=pb.Example(response=text)))
    changes, _ = await compared(store, before, after)
    assert {(change.kind, change.reason) for change in changes} == {("went", "never drawn"), ("came", "never drawn")}


async def test_reads_travel_in_batches_and_no_row_is_looked_up_that_is_the_same(store: Any) -> None:
    before, after = Run(store, "a"), Run(store, "b")
    before.rows(*range(300))
    after.rows(*range(300))
    store.calls.clear()
    await compared(store, before, after)
    assert len(store.calls) < 20


async def test_a_side_is_a_version_or_a_run(store: Any) -> None:
    run = Run(store, "first")
    store.versions.append(ds.Version(name="v-39fbde69a5cbe471", collection="ab" * 16))
    assert (await find_side(store, "first")).collection == run.collection
    assert (await find_side(store, run.collection[:8])).collection == run.collection
    assert (await find_side(store, "v-39fbde69a5cbe471")).collection == "ab" * 16
    with pytest.raises(Failure, match="'v-0' is neither a version"):
        await find_side(store, "v-0")
    Run(store, "first", version=2)
    with pytest.raises(Failure, match="several runs match 'first'"):
        await find_side(store, "first")


def run_command(store: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    @contextlib.asynccontextmanager
    async def services(*_: object, **__: object) -> AsyncIterator[Any]:
        yield store

    monkeypatch.setattr(diff, "services", services)
    return CliRunner().invoke(app, ["data", "diff", *arguments])


@pytest.fixture
def two(store: Any) -> Any:
    before, after = Run(store, "a"), Run(store, "b")
    before.rows(1, 2)
    after.rows(1)
    instruction = after.instruction(after.seed(2), "task 2")
    after.reject(instruction, "answer 2", pb.KIND_RESPONSE, "cut-off", "at \x1b[2J 640\ntokens")
    return store


def test_the_command_prints_rows_and_counts(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_command(two, monkeypatch, "a", "b")
    assert result.exit_code == 0, result.output
    first, *rest = result.output.splitlines()
    assert first.startswith("- ")
    assert first.endswith("  cut-off: at �[2J 640 tokens")
    assert rest == [
        "A a: 2 rows; B b: 1 row; 1 identical",
        "1 only in A, by the reason why B lacks them:",
        "        1  cut-off",
    ]
    assert run_command(two, monkeypatch, "a", "b", "--summary").output.splitlines() == rest


def test_the_command_says_that_a_run_has_not_finished(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = next(record for record in two.records.values() if record.run.name == "b")

    def happened(number: int, state: pb.RunState.ValueType) -> None:
        event = pb.RunEvent(state=state)
        two.add(complete(pb.Record(kind=pb.KIND_RUN_EVENT, parents=[run.id], attempt=number, run_event=event)))

    happened(0, pb.RUN_STATE_RUNNING)
    told = " ".join(run_command(two, monkeypatch, "a", "b").output.split())
    assert "b: the run has not finished (it is running); these are its rows so far" in told
    assert "a: the run" not in told
    happened(1, pb.RUN_STATE_SUCCEEDED)
    assert "has not finished" not in run_command(two, monkeypatch, "a", "b").output


def test_the_command_says_once_why_a_row_changed(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = Run(store, "a"), Run(store, "b", version=2)
    before.rows(1)
    seed = after.seed(1)
    instruction = after.instruction(seed, "task 1")
    after.row(seed, instruction, after.response(instruction, "answer 1", answer="answer 1, cut better"))
    first = run_command(store, monkeypatch, "a", "b").output.splitlines()[0]
    assert first.startswith("~ ")
    assert first.endswith("  responses: version 1 → 2: response")


def test_the_command_gives_json_lines(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_command(two, monkeypatch, "a", "b", "--json")
    row, summary = [json.loads(line) for line in result.output.splitlines()]
    assert (row["kind"], row["reason"], row["after"]) == ("went", "cut-off", "")
    assert summary["summary"]["reasons"] == {"changed": {}, "went": {"cut-off": 1}, "came": {}}


def test_a_side_that_is_nothing_is_named(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_command(two, monkeypatch, "a", "nowhere")
    assert result.exit_code == 1
    assert "'nowhere' is neither a version" in result.output


def test_a_version_of_a_named_collection_is_compared(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = next(record for record in two.records.values() if record.run.name == "a")
    two.members["my rows"] = two.members[run.id]
    two.versions.append(ds.Version(name="v-1", collection="my rows", rows=2))
    result = run_command(two, monkeypatch, "v-1", "b")
    assert result.exit_code == 0, result.output
    assert "A v-1: 2 rows; B b: 1 row; 1 identical" in result.output


def test_versions_of_one_collection_are_refused_and_a_collection_that_grew_is_told(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(record for record in two.records.values() if record.run.name == "a")
    two.versions += [ds.Version(name=f"v-{rows}", collection=run.id, rows=rows) for rows in (1, 2)]
    result = run_command(two, monkeypatch, "v-1", "v-2")
    assert result.exit_code == 1
    assert "v-1 and v-2 are of one collection" in " ".join(result.output.split())
    told = " ".join(run_command(two, monkeypatch, "v-1", "b").output.split())
    assert "v-1 has 1 row, but its collection has 2 by now" in told
    assert "by now" not in run_command(two, monkeypatch, "v-2", "b").output
