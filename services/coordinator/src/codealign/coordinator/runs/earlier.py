"""Rates of earlier runs with the same models, pipeline and strategy, to forecast a run that has not started."""

from __future__ import annotations

from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.runs.config import model_of
from codealign.coordinator.runs.forecast import duration
from codealign.coordinator.runs.items import SELECTED

_MOST_RUNS = 5
"""Maximum earlier runs that are looked at, newest first."""


@dataclass
class Rates:
    """Sums over earlier runs with rows."""

    runs: int = 0
    rows: int = 0
    tokens: int = 0
    """Computed prompt tokens and generated tokens."""
    seeds: int = 0
    """Seeds taken."""
    judged: int = 0
    """Seeds, with those that a rule dropped."""
    seconds_per_row: float = 0.0
    """Seconds with a request at inference, of the slowest run: one that reused completions took no time for them."""


async def rates(dataset: Dataset, run: pb.Run, seed_config_id: str) -> Rates:
    """Return the rates of the newest runs with the same pipeline, models and selection strategy that have rows.

    Args:
        dataset: The store.
        run: The run to forecast, with every default filled in.
        seed_config_id: Configuration of its seed rules.

    Raises:
        CodeAlignError: The store cannot answer.
    """
    found = Rates()
    alike = [
        record
        for record in await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_RUN))
        if _method(record.run) == _method(run)
    ]
    alike.sort(key=lambda record: (record.provenance.created_at.ToNanoseconds(), record.id), reverse=True)
    for record in alike[:_MOST_RUNS]:
        counts = (await dataset.count(ds.CountRequest(collection=record.id))).counts
        rows = sum(each.count for each in counts if each.kind == pb.KIND_EXAMPLE)
        if not rows:
            continue
        found.runs += 1
        found.rows += rows
        for each in counts:
            if each.kind != pb.KIND_COMPLETION:  # the records parsed from it repeat its tokens
                # Those of which it is unknown count as computed.
                found.tokens += each.prompt_tokens - each.cached_prompt_tokens + each.generated_tokens
            if each.kind == pb.KIND_DECISION and each.label == SELECTED:
                found.seeds += each.count
                found.judged += each.count
            elif each.kind == pb.KIND_DECISION and each.stage_config_id == seed_config_id:
                found.judged += each.count
        logs = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_WORK_LOG, parent_id=record.id))
        seconds = sum(log.work_log.inference_seconds for log in logs)
        found.seconds_per_row = max(found.seconds_per_row, seconds / rows)
    return found


def _method(run: pb.Run) -> tuple[str, str, list[str]]:
    return run.pipeline, run.selection.strategy, [model_of(run, stage.stage).revision for stage in run.stages]


def forecast(run: pb.Run, found: Rates, seeds: int, most: int) -> api.Forecast | None:
    """Return what a run would reach at these rates, or None if there are none.

    Args:
        run: The run.
        found: Rates of earlier runs.
        seeds: Seeds in the collection.
        most: Upper bound of its rows.
    """
    if not found.rows or not found.seeds:
        return None
    usable = seeds * found.seeds / found.judged
    if run.seeds.limit:
        usable = min(usable, run.seeds.limit)
    per_row, seconds_per_row = found.tokens / found.rows, found.seconds_per_row
    reach = min(most, usable * found.rows / found.seeds)
    ends, target = [reach], run.target
    if target.rows:
        ends.append(target.rows)
    if target.tokens and per_row:
        ends.append(target.tokens / per_row)
    if target.HasField("device_hours") and seconds_per_row:
        ends.append(target.device_hours * 3600 / max(1, target.devices) / seconds_per_row)
    rows = min(ends)
    made = api.Forecast(tokens_per_row=per_row, expected_rows=round(rows), expected_tokens=round(rows * per_row))
    words = f"about {made.expected_rows:,} rows for {made.expected_tokens:,} tokens"
    if seconds_per_row:
        made.seconds_left = rows * seconds_per_row
        words += f" in {duration(made.seconds_left)}"
    runs = "an earlier run" if found.runs == 1 else f"{found.runs} earlier runs"
    made.text = f"{words}, at the rates of {runs} with the same models, pipeline and strategy"
    if target.rows and reach < target.rows:
        made.text += f"; the seeds will not suffice for {target.rows:,} rows"
    return made
