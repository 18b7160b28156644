"""Rows of each step."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codealign.trainer.sft.job import TrainingError
from codealign.trainer.sft.order import plan
from codealign.trainer.sft.progress import Point, ProgressReader, ProgressWriter, thinned
from codealign.trainer.sft.rows import Row, drawn, read_rows


def test_each_epoch_sees_each_row_once_in_another_order() -> None:
    order = plan(10, batch_size=4, epochs=3, max_steps=0, seed=7)
    assert (order.steps_in_epoch, order.total_steps) == (3, 9)
    epochs = [[row for at in (1, 2, 3) for row in order.step(epoch * 3 + at)] for epoch in range(3)]
    assert all(sorted(rows) == list(range(10)) for rows in epochs)
    assert all(one != two for one, two in pairwise(epochs))
    assert order.epoch(0) == plan(10, batch_size=2, epochs=1, max_steps=0, seed=7).epoch(0)
    assert order.epoch(0) != plan(10, batch_size=4, epochs=3, max_steps=0, seed=8).epoch(0)


def test_steps_follow_epochs_and_the_limit() -> None:
    def steps(epochs: float, limit: int) -> int:
        return plan(10, batch_size=4, epochs=epochs, max_steps=limit, seed=0).total_steps

    assert [steps(1, 0), steps(0.5, 0), steps(0.01, 0), steps(4, 5), steps(1, 50)] == [3, 2, 1, 5, 3]


def test_sums_go_over_the_rows_of_each_step() -> None:
    order = plan(5, batch_size=2, epochs=1, max_steps=0, seed=0)
    amounts = [1, 10, 100, 1000, 10000]
    assert sum(order.sums(amounts)) == 11111
    assert next(order.sums(amounts)) == sum(amounts[row] for row in order.step(1))


def test_fewer_rows_are_drawn_by_the_seed_in_their_order_and_are_among_those_of_a_larger_number() -> None:
    rows = [Row(str(number), "task", "answer") for number in range(50)]
    few, more = drawn(rows, 10, 1), drawn(rows, 30, 1)
    assert (len(few), len(more)) == (10, 30)
    assert set(few) < set(more)
    assert list(few) == [row for row in rows if row in few]
    assert few != drawn(rows, 10, 2)
    assert drawn(rows, 0, 1) == rows
    with pytest.raises(TrainingError, match=r"spec\.rows is 51, but the dataset has only 50 rows"):
        drawn(rows, 51, 1)


def test_rows_have_the_same_order_whatever_their_ids_and_files(tmp_path: Path) -> None:
    texts = [(f"task {number % 5}", f"answer {number}") for number in range(12)]

    def written(name: str, parts: list[list[tuple[str, str]]], first_id: int) -> str:
        (tmp_path / name).mkdir()
        for number, part in enumerate(parts):
            rows = [
                {"id": f"{first_id + at:04x}", "instruction": task, "response": answer}
                for at, (task, answer) in enumerate(part)
            ]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / f"{number}.parquet")
        return str(tmp_path / name)

    one = read_rows(written("one", [texts], 0))
    other = read_rows(written("other", [texts[7:], texts[:7]], 100))
    assert [(row.instruction, row.response) for row in one] == [(row.instruction, row.response) for row in other]
    assert {(row.instruction, row.response) for row in one} == set(texts)
    assert one != other


def test_a_reader_follows_events_over_restarts_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    reader = ProgressReader(path)
    assert not reader.read()

    def started(resumed: int) -> None:
        writer.write(
            "started",
            resumed_step=resumed,
            total_steps=9,
            rows=5,
            truncated_rows=1,
            dropped_rows=0,
            trained_tokens=resumed * 7,
        )

    def step(number: int) -> None:
        writer.write(
            "step",
            step=number,
            loss=1.0 / number,
            learning_rate=0.1,
            trained_tokens=number * 7,
            tokens_per_second=5.0,
            seconds_per_step=2.0,
        )

    writer = ProgressWriter(path)
    started(0)
    for number in (1, 2, 3, 4):
        step(number)
    writer.write("checkpoint", step=2)
    assert reader.read()
    assert (reader.progress.step, reader.progress.checkpoint_step, reader.progress.seconds_left) == (4, 2, 10.0)
    with path.open("ab") as file:
        file.write(b'{"event": "step", "st')  # killed in the middle of a line
    writer = ProgressWriter(path)
    started(2)
    step(3)
    assert reader.read()
    assert [point.step for point in reader.progress.points] == [1, 2, 3]
    assert (reader.progress.starts, reader.progress.trained_tokens) == (2, 21)


def test_thinning_keeps_the_ends() -> None:
    points = [Point(step, float(step), 0.0) for step in range(1, 5001)]
    kept = thinned(points)
    assert len(kept) == 1000
    assert (kept[0].step, kept[-1].step) == (1, 5000)
    assert thinned(points[:3]) == points[:3]
