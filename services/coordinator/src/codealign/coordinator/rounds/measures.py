"""Measures of a round's data, from the records of its run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator import pipelines
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import PASSED
from codealign.coordinator.rules import diversity
from codealign.coordinator.runs.progress import stored_progress

MEASURED_ROWS = 10_000
"""Maximum number of rows whose texts are read: those with the lowest ids, which are hashes and so a random sample."""


async def measure(store: RunStore, run: pb.Run, version: str) -> pb.RoundData:
    """Measure a finished run.

    Args:
        store: Store of the run's collection.
        run: The run.
        version: Its published version.
    """
    counts = await store.count()
    found = pb.RoundData(version=version, rows=sum(item.count for item in counts if item.kind == pb.KIND_EXAMPLE))
    pipeline = pipelines.get(run.pipeline)
    if pipeline.execution is not None:
        verdicts = [item for item in counts if item.kind == pb.KIND_VERDICT]
        passed = sum(item.count for item in verdicts if item.label == PASSED)
        tally = stored_progress(run, counts)[pipeline.candidates.name]
        written = max(tally.kept + tally.dropped, sum(item.count for item in verdicts))
        found.pass_rate = passed / written if written else 0.0
    rows = await _rows(store)
    found.concepts = len({concept.casefold().strip() for row in rows for concept in row.concepts})
    for measured, texts in (
        (found.instructions, [row.instruction for row in rows]),
        (found.responses, [row.response for row in rows]),
    ):
        made = await asyncio.to_thread(diversity.measure, texts)
        measured.CopyFrom(
            pb.TextDiversity(distinct_1=made.distinct_1, distinct_2=made.distinct_2, similarity=made.similarity)
        )
    return found


async def _rows(store: RunStore) -> Sequence[pb.Example]:
    request = ds.ScanRequest(kind=pb.KIND_EXAMPLE, collection=store.collection)
    rows: list[pb.Example] = []
    async for record in store.scan(request):
        rows.append(record.example)
        if len(rows) == MEASURED_ROWS:
            break
    return rows
