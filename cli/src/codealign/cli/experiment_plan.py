"""Forecast of an experiment: what it will make, and how many GPU hours that may take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.terminal import count, duration

_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s?b(?![a-z0-9])", re.IGNORECASE)
_PAPER_SEEDS, _PAPER_ROWS, _PAPER_BILLIONS = 37_000, 16_000, 7.0
_PAPER_GENERATION, _PAPER_TUNING = 4 * 7.0, 4 * 0.5
"""A100 hours: four GPUs for 7 h of generation and 30 min of tuning."""
_COMPARED = 8
"""Earlier runs that a forecast looks at."""
PAPER = "4 A100, 37k seeds, CodeQwen1.5-7B: 7 h of generation and 30 min of tuning for 16k rows"


def sizes(experiment: pb.Experiment) -> Iterator[str]:
    """Yield what the experiment consists of."""
    seeds = len(experiment.seeds)
    trained = [arm for arm in experiment.arms if arm.HasField("run")]
    runs = {arm.run.SerializeToString(deterministic=True) + arm.instructions_of.encode() for arm in trained}
    greedy = sum(not settings.temperature for settings in experiment.evaluations)
    models = {arm.model for arm in experiment.arms}
    base = len(models) * (greedy + (len(experiment.evaluations) - greedy) * seeds)
    evaluations = base + len(trained) * seeds * len(experiment.evaluations)
    yield (
        f"{count(len(experiment.arms), 'arm')} for {count(seeds, 'seed')}: {count(len(runs) * seeds, 'run')}, "
        f"{count(len(trained) * seeds, 'training')}, {count(evaluations, 'evaluation')}; what exists is reused"
    )


def tokens(experiment: pb.Experiment, plans: Sequence[api.PlanRunResponse | None]) -> Iterator[str]:
    """Yield upper bounds of the tokens of all runs."""
    seeds = len(experiment.seeds)
    known = [plan for plan in plans if plan is not None]
    prompt = seeds * sum(stage.prompt_tokens for plan in known for stage in plan.stages)
    generated = seeds * sum(stage.generated_tokens for plan in known for stage in plan.stages)
    if known:
        read = f"{prompt:,} prompt tokens and " if prompt else ""
        yield f"at most {read}{generated:,} new tokens for data (completions shared by arms are counted once)"
    if len(known) < len(plans):
        more = count(len(plans) - len(known), "run")
        yield f"{more} for each seed cannot be planned yet: another arm's run comes first, or the model is not loaded"
    for note in dict.fromkeys(note for plan in known for note in plan.notes):
        yield f"note: {note}"


def gpu_hours(experiment: pb.Experiment, plans: Sequence[api.PlanRunResponse | None]) -> str:
    """Return an estimate of the GPU hours, scaled from those that the paper states by seeds, rows and parameters."""
    generation = tuning = 0.0
    assumed = False
    for plan in plans:
        if plan is None:
            continue
        items = plan.stages[0].items if plan.stages else 0
        used = min(plan.config.seeds.limit or items, items)
        billions = _billions(plan.config.model.model)
        assumed |= billions is None
        generation += _PAPER_GENERATION * used / _PAPER_SEEDS * (billions or _PAPER_BILLIONS) / _PAPER_BILLIONS
    trained = [arm for arm in experiment.arms if arm.HasField("run")]
    known = [plan for plan in plans if plan is not None and plan.stages]
    most = max(
        (min(plan.config.seeds.limit or plan.stages[0].items, plan.stages[0].items) for plan in known), default=0
    )
    for arm in trained:
        billions = _billions(arm.model)
        assumed |= billions is None
        rows = arm.rows or most * _PAPER_ROWS / _PAPER_SEEDS
        tuning += _PAPER_TUNING * rows / _PAPER_ROWS * (billions or _PAPER_BILLIONS) / _PAPER_BILLIONS
    seeds = len(experiment.seeds)
    size = "; the models' sizes are unknown and taken as 7B" if assumed else ""
    return (
        f"estimate: {seeds * generation:,.1f} A100-hours of generation and {seeds * tuning:,.1f} of tuning, without "
        f"evaluations; scaled linearly from the paper's figures ({PAPER}){size}"
    )


def _billions(model: str) -> float | None:
    """Return a model's billions of parameters by its name, e.g. 1.5 for "Qwen2.5-Coder-1.5B"."""
    found = _SIZE.findall(model)
    return float(found[-1]) if found else None


async def measured(connection: Connection, experiment: pb.Experiment) -> str:
    """Return how long a run of the same pipeline and model took, or "" if none has succeeded.

    Of the newest such runs the slowest counts: others may have found their completions in the store.
    """
    clients = connection.clients.coordinator
    listed = (await connection.call(clients.ListRuns, api.ListRunsRequest(summary_only=True))).runs
    wanted = {(arm.run.pipeline, arm.run.model.revision) for arm in experiment.arms if arm.HasField("run")}
    alike = [
        run
        for run in listed
        if run.state == pb.RUN_STATE_SUCCEEDED and (run.config.pipeline, run.config.model.revision) in wanted
    ]
    slowest, told = 0.0, ""
    for run in alike[:_COMPARED]:
        try:
            report = await connection.call(clients.GetReport, api.GetReportRequest(run=run.id), timeout=600)
        except Failure:
            return ""
        seconds = max((stage.wall_seconds for stage in report.stages), default=0.0)
        seeds = report.stages[0].kept if report.stages else 0
        if seeds and seconds / seeds > slowest:
            slowest = seconds / seeds
            taken = f"{duration(seconds)} for {count(seeds, 'seed function')}"
            told = f"measured: run {run.id[:12]} of this model took {taken}"
    return told
