"""Report of a run, built from the store's aggregate counts: its cost grows with the stages, not with the records."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import InvalidArgument
from codealign.coordinator import pipelines
from codealign.coordinator.evaluation.history import boards_of, comparisons
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import PASSED
from codealign.coordinator.reporting import agreement
from codealign.coordinator.reporting.row_lineage import follow
from codealign.coordinator.rounds.scores import reports
from codealign.coordinator.runs.config import SEED_RULES

_ITEMS = (
    pb.KIND_SEED,
    pb.KIND_CONCEPT_SET,
    pb.KIND_INSTRUCTION,
    pb.KIND_RESPONSE,
    pb.KIND_VERDICT,
    pb.KIND_EXAMPLE,
    pb.KIND_REJECTION,
    pb.KIND_DECISION,
)
"""Records that count as items of a stage. Completions are not listed: the records parsed from them count instead."""


@dataclass
class _Counted:
    """Aggregate counts of the records that one configuration produced."""

    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    makes: int = 0


async def build(services: Services, status: api.RunStatus) -> api.GetReportResponse:
    """Build the report: funnel with tokens and times, lineage of one row, checkpoints and evaluations.

    If this coordinator does not have the run's pipeline, the stages are derived from the records, one per
    configuration.

    Args:
        services: Clients of the other services; only the store is used.
        status: Current status of the run.
    """
    report = api.GetReportResponse(run=status)
    pipeline = describe(status.config.pipeline)
    if pipeline is not None:
        report.pipeline.CopyFrom(pipeline)
    async with RunStore(services.dataset, status.id) as store:
        counts = await store.count()
        configs = await store.get(sorted({item.stage_config_id for item in counts if item.stage_config_id}))
        # Verdicts on stronger tests repeat those on the responses' own.
        own = [item for item in counts if not _is_of_comparison(item, configs)]
        by_stage = _by_stage(own, configs)
        wall = await _read_logs(store, report)
        for progress in status.stages or _as_counted(by_stage, status.config):
            tokens = by_stage[progress.stage].tokens if progress.stage in by_stage else Counter[str]()
            report.stages.append(
                api.StageReport(
                    stage=progress.stage,
                    items=progress.done,
                    kept=progress.kept,
                    reasons=progress.reasons,
                    prompt_tokens=tokens["prompt"],
                    cached_prompt_tokens=tokens["cached"],
                    unknown_prompt_tokens=tokens["unknown"],
                    generated_tokens=tokens["generated"],
                    wall_seconds=wall.get(progress.stage, 0.0),
                )
            )
        for item in own:
            if item.kind == pb.KIND_VERDICT:
                report.verdicts[item.label] += item.count
            elif item.kind == pb.KIND_EXAMPLE:
                report.rows += item.count
        trail, references = await follow(store)
        report.trail.extend(trail)
        report.trail_references.extend(references)
        if (compared := await agreement.read(store, counts)) is not None:
            report.agreement.CopyFrom(compared)
        await _add_models(store, status, report)
        await _add_rounds(store, status, report)
    return report


def describe(name: str) -> api.Pipeline | None:
    """Describe a pipeline, or return None if this coordinator does not have it."""
    try:
        return pipelines.describe(pipelines.get(name))
    except InvalidArgument:
        return None


def _is_of_comparison(item: dataset.RecordCount, configs: Mapping[str, pb.Record]) -> bool:
    config = configs.get(item.stage_config_id)
    return config is not None and config.stage_config.kind == pb.KIND_JUDGEMENT


def _by_stage(counts: Sequence[dataset.RecordCount], configs: Mapping[str, pb.Record]) -> dict[str, _Counted]:
    """Return the counts by the name of the records' configuration."""
    relevant = [item for item in counts if item.kind in _ITEMS and item.stage_config_id]
    found: dict[str, _Counted] = defaultdict(_Counted)
    for item in relevant:
        if item.stage_config_id not in configs:
            continue
        config = configs[item.stage_config_id].stage_config
        stage = found[config.name]
        stage.makes = config.kind
        stage.tokens.update(
            prompt=item.prompt_tokens,
            cached=item.cached_prompt_tokens,
            unknown=item.unknown_prompt_tokens,
            generated=item.generated_tokens,
        )
        dropped = item.outcome == pb.Decision.OUTCOME_DROPPED
        if item.kind == pb.KIND_REJECTION or dropped or (item.kind == pb.KIND_VERDICT and item.label != PASSED):
            stage.reasons[item.label] += item.count
        elif item.kind != pb.KIND_DECISION or config.name == SEED_RULES:  # a kept row is counted by its own record
            stage.kept += item.count
    return found


def _as_counted(by_stage: Mapping[str, _Counted], run: pb.Run) -> list[api.StageProgress]:
    """Derive the stages from the records alone: seeds, generating stages in the run's order, then the others."""
    writing = {stage.stage: place for place, stage in enumerate(run.stages)}

    def place(name: str) -> tuple[bool, int, int, str]:
        makes = by_stage[name].makes
        return name != SEED_RULES, writing.get(name, len(writing)), makes, name

    found = []
    for name in sorted(by_stage, key=place):
        counted = by_stage[name]
        dropped = counted.reasons.total()
        done = counted.kept + dropped
        found.append(
            api.StageProgress(
                stage=name, expected=done, done=done, kept=counted.kept, dropped=dropped, reasons=counted.reasons
            )
        )
    return found


async def _read_logs(store: RunStore, report: api.GetReportResponse) -> dict[str, float]:
    """Return the seconds that coordinators worked on each stage, and add what a run with a target did to the report.

    The seconds are summed over the run's WorkLog records.
    """
    found: dict[str, float] = defaultdict(float)
    request = dataset.ScanRequest(kind=pb.KIND_WORK_LOG, parent_id=store.collection)
    async for record in store.scan(request):
        for stage, seconds in record.work_log.busy_seconds.items():
            found[stage] += seconds
        if record.work_log.HasField("summary"):
            report.target.CopyFrom(record.work_log.summary)
    return found


async def _add_models(store: RunStore, status: api.RunStatus, report: api.GetReportResponse) -> None:
    """Add the run's checkpoints, and the evaluations of its model and of the checkpoints."""
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


async def _add_rounds(store: RunStore, status: api.RunStatus, report: api.GetReportResponse) -> None:
    """Add the rounds of the series that the run belongs to."""
    series = status.series
    if not series.rounds:
        return
    first_id = series.rounds[0].run
    first = (await store.get([first_id]))[first_id].run
    report.rounds.extend(await reports(store, series.config, first.model, series.rounds))
