"""A run's report, from its records alone."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.clients import Clients
from codealign.coordinator.evaluation.history import boards_of, comparisons
from codealign.coordinator.ground.tally import verdict_name
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.reporting.row_lineage import follow

_STAGE_NAMES = {
    pb.KIND_CONCEPT_SET: "concepts",
    pb.KIND_INSTRUCTION: "instructions",
    pb.KIND_RESPONSE: "responses",
    pb.KIND_VERDICT: "execution",
}


async def build(clients: Clients, status: api.RunStatus) -> api.GetReportResponse:
    """The funnel with tokens and times, one row's trail, and what was trained and evaluated.

    A stage's wall time is the length of the union of its items' intervals, each from when the work was asked for to
    when the record was appended.
    """
    store = RunStore(clients, status.id)
    report = api.GetReportResponse(run=status)
    by_stage = {stage.stage: stage for stage in status.stages}
    intervals: dict[str, list[tuple[float, float]]] = defaultdict(list)
    tokens: dict[str, Counter[str]] = defaultdict(Counter)
    verdicts: Counter[str] = Counter()
    for wanted in (*_STAGE_NAMES, pb.KIND_REJECTION):
        async for record in store.scan(dataset.ScanRequest(kind=wanted, collection=store.collection)):
            stage = _STAGE_NAMES[record.rejection.rejected_kind if wanted == pb.KIND_REJECTION else wanted]
            made = record.provenance
            end = made.created_at.ToNanoseconds() / 1e9
            intervals[stage].append((end - made.seconds, end))
            tokens[stage].update(
                prompt=made.prompt_tokens, cached=made.cached_prompt_tokens, generated=made.generated_tokens
            )
            if wanted == pb.KIND_VERDICT:
                verdicts[verdict_name(record.verdict.result.verdict)] += 1
    for name, progress in by_stage.items():
        report.stages.append(
            api.StageReport(
                stage=name,
                items=progress.done,
                kept=progress.kept,
                reasons=progress.reasons,
                prompt_tokens=tokens[name]["prompt"],
                cached_prompt_tokens=tokens[name]["cached"],
                generated_tokens=tokens[name]["generated"],
                wall_seconds=_union(intervals[name]),
            )
        )
    report.verdicts.update(verdicts)
    report.rows = by_stage["selection"].kept
    trail, references = await follow(clients, store)
    report.trail.extend(trail)
    report.trail_references.extend(references)
    await _add_models(store, status, report)
    return report


async def _add_models(store: RunStore, status: api.RunStatus, report: api.GetReportResponse) -> None:
    """The run's checkpoints, and the evaluations of its model and of these."""
    if status.version:
        checkpoints = [
            record
            async for record in store.scan(dataset.ScanRequest(kind=pb.KIND_CHECKPOINT))
            if record.checkpoint.dataset_version == status.version
        ]
        checkpoints.sort(key=lambda record: (record.provenance.created_at.ToNanoseconds(), record.id))
        report.checkpoints.extend(checkpoints)
    base = status.config.model.revision
    tuned = [record.checkpoint.revision for record in report.checkpoints]
    boards = await boards_of(store, list(dict.fromkeys([base, *tuned])))
    evaluations = [(board, await asyncio.to_thread(board.evaluation)) for board in boards]
    report.evaluations.extend(evaluation for _, evaluation in evaluations)
    report.comparisons.extend(await asyncio.to_thread(comparisons, base, list(dict.fromkeys(tuned)), evaluations))


def _union(intervals: list[tuple[float, float]]) -> float:
    """The total length that the intervals cover."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
