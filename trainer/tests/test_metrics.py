"""Metrics of a training while it runs, on one machine or followed by the operator."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import REGISTRY

from codealign.api.dataset.v1 import records_pb2 as records
from codealign.api.training.v1 import training_pb2 as api
from codealign.trainer.cluster import metrics as operator
from codealign.trainer.library import Entry
from codealign.trainer.metrics import TrainingMeter
from codealign.trainer.sft.progress import ProgressWriter

MODEL = "model-of-a-test"


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"codealign_trainer_{name}", labels)


def step(writer: ProgressWriter, number: int, loss: float) -> None:
    writer.write(
        "step",
        step=number,
        loss=loss,
        learning_rate=0.1,
        tokens_per_second=50.0,
        seconds_per_step=1.0,
        trained_tokens=100 * number,
    )


def started(writer: ProgressWriter, resumed_step: int) -> None:
    counts = {"total_steps": 9, "rows": 4, "truncated_rows": 0, "dropped_rows": 0}
    writer.write("started", resumed_step=resumed_step, trained_tokens=100 * resumed_step, **counts)


def test_a_training_counts_its_steps_tokens_and_restarts_and_keeps_its_last_loss(tmp_path: Path) -> None:
    job: Any = SimpleNamespace(model_name=MODEL, progress_file=tmp_path / "progress.jsonl")
    writer = ProgressWriter(job.progress_file)
    entry = Entry(api.Training(), job, records.Record())
    before = {name: value(name) or 0.0 for name in ("steps_total", "tokens_total", "restarts_total")}
    meter = TrainingMeter(entry)
    assert value("running_trainings") == 1
    started(writer, 0)
    for number in (1, 2, 3):
        step(writer, number, 1 / number)
    entry.refresh()
    meter.update(entry)
    assert value("step", model=MODEL) == 3
    assert value("planned_steps", model=MODEL) == 9
    assert value("loss", model=MODEL) == 1 / 3
    assert value("tokens_per_second", model=MODEL) == 50
    started(writer, 2)  # from a checkpoint
    step(writer, 3, 0.3)
    entry.refresh()
    meter.update(entry)
    grown = {name: (value(name) or 0.0) - number for name, number in before.items()}
    assert grown == {"steps_total": 3, "tokens_total": 300, "restarts_total": 1}
    meter.end()
    assert value("running_trainings") == 0
    assert (value("loss", model=MODEL), value("tokens_per_second", model=MODEL)) == (0.3, 0)


def test_every_state_of_finetunejobs_is_shown() -> None:
    operator.show_jobs(["Running", "Failed", "Failed"])
    shown = {
        state: REGISTRY.get_sample_value("codealign_operator_finetunejobs", {"state": state.lower()})
        for state in operator.STATES
    }
    assert shown == {"Pending": 0, "Running": 1, "Suspended": 0, "Succeeded": 0, "Failed": 2, "Cancelled": 0}
    operator.show_jobs([])
