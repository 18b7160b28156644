"""Carries a run out: every seed goes through the pipeline's stages, then rows are chosen and published.

Nothing waits for a chunk: an item goes on as soon as it is ready. A step first looks in the store for what it would
make, so a run that was interrupted at any moment is simply carried out again: what is finished is found, what is not is
done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
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
from codealign.coordinator.runs.config import stage_configs
from codealign.coordinator.runs.context import Context
from codealign.coordinator.runs.items import Items
from codealign.coordinator.runs.publishing import publish
from codealign.coordinator.runs.selection import Selection
from codealign.coordinator.settings import CoordinatorSettings


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    rows: int
    version: str
    """Empty: there was no row to publish."""
    message: str
    """For a person."""


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
    """Carry a run out, from where it is.

    Args:
        run: Its record, with every default filled in.
        services: All that it calls.
        store: Of its collection, under its lease.
        benchmarks: Texts that must not occur in a seed or a row.
        settings: How much is in flight at once.
        progress: Of the pipeline's stages; kept up.
        gate: Raises RunStopped where no new work may start.
        say: Told what the run is doing, for its status.

    Raises:
        RunStopped: The gate said so; everything that was in flight is finished.
        RunFailed: It cannot go on without a person.
        BreakerOpened: It is to be paused; everything that was in flight is finished.
        LeaseLost: Another coordinator has it.
    """
    pipeline = pipelines.get(run.run.pipeline)
    _check_versions(run.run, pipeline, benchmarks)
    breaker = Breaker()

    def stop_where_wanted() -> None:
        gate()
        if breaker.reason:
            raise RunStopped(breaker.reason)

    configs = stage_configs(run.run)
    context = Context(
        run, pipeline, Settings(run.run), configs, store, benchmarks, progress, breaker, stop_where_wanted
    )
    try:
        await store.append_all([run, *configs.all()])
        items = Items(context, services, settings)
        say("working on seeds")
        groups = await items.all_seeds()
        await items.settle_verdicts()
        say("selecting rows")
        selection = Selection(context, items.candidates, items.draw_on, items.seeds_in_flight)
        rows = await selection.choose(groups)
        await items.settle()
        say("publishing")
        version = await publish(context, services.inference, rows)
    except RunStopped as stopped:
        if breaker.reason:
            raise BreakerOpened(breaker.reason) from stopped
        raise
    except BaseExceptionGroup as group:
        raise decisive_error(group) from None
    return Outcome(rows, version, _message(rows, context))


def _check_versions(run: pb.Run, pipeline: Pipeline, benchmarks: BenchmarkTexts) -> None:
    """What the run's rows rest on is what is here.

    Raises:
        RunFailed: Names what differs: the rows of two versions would be mixed.
    """
    if run.selection.forbidden_texts_sha256 != benchmarks.sha256:
        raise RunFailed("the benchmark files are not those that the run was created with: set the same ones")
    settings = Settings(run)
    here = {
        f"stage {stage.name!r}": (settings.of(stage.name).version, stage.reading_version) for stage in pipeline.writing
    }
    here["the rules for seeds and rows"] = run.selection.rules_version, pipeline.rules_version
    for what, (created, current) in here.items():
        if created not in (0, current):
            raise RunFailed(
                f"the run was created with version {created} of {what}, and this coordinator has version {current}: "
                "`codealign rejudge` makes a new run of it, which asks for no completion again"
            )


def _message(rows: int, context: Context) -> str:
    """How a run ended, and what a person should look at."""
    tallies = context.progress.stages.values()
    notes = ["no candidate met the rules: there is nothing to publish" if not rows else _count(rows, "row")]
    if errors := sum(tally.reasons[INTERNAL_ERROR] for tally in tallies):
        notes.append(_count(errors, "internal error"))
    if undecided := sum(tally.reasons[UNDECIDED] for tally in tallies):
        notes.append(f"{_count(undecided, 'program')} without a verdict, since the sandbox kept failing on it")
    return "; ".join(notes)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
