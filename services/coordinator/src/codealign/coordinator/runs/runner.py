"""Carries a run out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import Progress
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
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
        BreakerOpened: It is to be paused.
        LeaseLost: Another coordinator has it.
    """
    raise NotImplementedError
