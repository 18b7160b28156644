"""Execution of a run: every seed goes through the pipeline's stages, then rows are selected and published.

Items are not processed in chunks: each continues as soon as it is ready. Every step first looks in the store for its
output, so a run that was interrupted at any moment is simply carried out again: finished work is found, the rest is
done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import traces
from codealign.coordinator import pipelines
from codealign.coordinator.ground.faults import RunFailed, RunStopped, decisive_error
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import Progress
from codealign.coordinator.pipelines import INTERNAL_ERROR
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Settings
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.breaker import UNDECIDED, Breaker, BreakerOpened
from codealign.coordinator.runs.checks import has_target
from codealign.coordinator.runs.config import stage_configs
from codealign.coordinator.runs.context import Context
from codealign.coordinator.runs.drawing import Drawing, message
from codealign.coordinator.runs.items import Items
from codealign.coordinator.runs.publishing import publish
from codealign.coordinator.runs.selection import Selection
from codealign.coordinator.settings import CoordinatorSettings


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    rows: int
    version: str
    """Name of the published version, or "" if there were no rows."""
    message: str
    """Summary for users."""


async def work(
    run: pb.Record,
    services: Services,
    store: RunStore,
    benchmarks: BenchmarkTexts,
    settings: CoordinatorSettings,
    progress: Progress,
    gate: Callable[[], None],
    say: Callable[[str], None],
) -> Outcome:
    """Carry out a run from where it stopped.

    Args:
        run: The run's record, with every default filled in.
        services: Services that it calls.
        store: Store of its collection, under its lease.
        benchmarks: Texts that must not occur in a seed or a row.
        settings: Limits on concurrent work.
        progress: Progress of the pipeline's stages, updated in place.
        gate: Raises RunStopped if no new work may start.
        say: Receives the run's current activity, for its status.

    Raises:
        RunStopped: The gate stopped the run; all in-flight work is finished.
        RunFailed: The run cannot continue without manual intervention.
        BreakerOpened: The run must be paused; all in-flight work is finished.
        LeaseLost: Another coordinator has the lease.
    """
    pipeline = pipelines.get(run.run.pipeline)
    _check_versions(run.run, pipeline, benchmarks)
    breaker, ended = Breaker(), ""

    def stop_where_wanted() -> None:
        gate()
        if breaker.reason:
            raise RunStopped(breaker.reason)

    configs = stage_configs(run.run)
    context = Context(
        run, pipeline, Settings(run.run), configs, store, benchmarks, progress, breaker, stop_where_wanted
    )
    try:
        with traces.item_span("run", [run.id], {"run": run.id, "pipeline": run.run.pipeline}):
            await store.append_all([run, *configs.all()])
            items = Items(context, services, settings)
            selection = Selection(context, items.key, items.draw_on, items.seeds_in_flight)
            if has_target(run.run):
                with traces.span("draw", {}):
                    async with Drawing(context, items, services.dataset) as drawing:
                        rows = await drawing.rows(selection, say)
                        ended = message(await drawing.summarize(selection), run.run)
                    await items.settle()
            else:
                say("working on seeds")
                with traces.span("seeds", {}):
                    groups = await items.all_seeds()
                    await items.settle_verdicts()
                say("selecting rows")
                with traces.span("select", {}):
                    rows = await selection.choose(groups)
                    await items.settle()
            say("publishing")
            with traces.span("publish", {}):
                version = await publish(context, services.inference, rows)
    except RunStopped as stopped:
        if breaker.reason:
            raise BreakerOpened(breaker.reason) from stopped
        raise
    except BaseExceptionGroup as group:
        raise decisive_error(group) from None
    return Outcome(rows, version, "; ".join(part for part in (_message(rows, context), ended) if part))


def _check_versions(run: pb.Run, pipeline: Pipeline, benchmarks: BenchmarkTexts) -> None:
    """Check that the versions that the run was created with are those of this coordinator.

    Raises:
        RunFailed: Names the difference: rows of two versions would be mixed.
    """
    if run.selection.forbidden_texts_sha256 != benchmarks.sha256:
        raise RunFailed("the benchmark files differ from those that the run was created with: configure the same files")
    settings = Settings(run)
    here = {
        f"stage {stage.name!r}": (settings.of(stage.name).version, stage.reading_version) for stage in pipeline.writing
    }
    here["the rules for seeds and rows"] = run.selection.rules_version, pipeline.rules_version
    for what, (created, current) in here.items():
        if created not in (0, current):
            raise RunFailed(
                f"the run was created with version {created} of {what}, but this coordinator has version {current}: "
                "make a new run with `codealign rejudge`, which reuses all completions"
            )


def _message(rows: int, context: Context) -> str:
    """Return a summary of the run and what users should check."""
    tallies = context.progress.stages.values()
    notes = ["no candidate met the rules: there is nothing to publish" if not rows else _count(rows, "row")]
    if errors := sum(tally.reasons[INTERNAL_ERROR] for tally in tallies):
        notes.append(_count(errors, "internal error"))
    if undecided := sum(tally.reasons[UNDECIDED] for tally in tallies):
        notes.append(f"{_count(undecided, 'program')} without a verdict, since the sandbox kept failing on it")
    return "; ".join(notes)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
