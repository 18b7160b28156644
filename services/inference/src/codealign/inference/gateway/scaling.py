"""How many workers the gateway wants, and the metric that tells KEDA.

The metric is a number of workers, so KEDA's target is 1. It does not depend on how many of them are ready: workers that
load a model are not asked for again, and a slow start changes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator

import grpc

from codealign.common.errors import CodeAlignError
from codealign.common.scaling.demand import Demand
from codealign.common.scaling.servicer import Trigger
from codealign.inference.gateway.dispatch import Dispatcher
from codealign.inference.gateway.fleet import Fleet

METRIC = "codealign-inference-workers"
SAMPLES_PER_WORKER = "samplesPerWorker"
"""Key in a trigger's metadata: samples for which a worker is wanted. Default: the samples that one decodes at once."""
WAIT_SECONDS = "waitSeconds"
"""Key in a trigger's metadata: when a sample has waited this long, more workers are wanted."""
_DEFAULT_WAIT_SECONDS = 60.0
_MISSED_SECONDS = 120.0
"""A call that no worker could answer asks for one for this long. Longer than callers wait before they call again."""
_GROWTH = 0.5
"""Share by which the workers are increased while samples wait too long."""


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """What decides how many workers are wanted."""

    samples: int
    """Samples that wait, or that workers have and have not answered."""
    oldest_seconds: float = 0.0
    """How long the sample that waits longest has waited. 0: none waits."""
    is_missed: bool = False
    """Whether a call has recently failed because no worker could answer it."""
    serving: int = 0
    """Workers that are there and do not start: they serve a model, are set aside, cannot have one or are dead."""
    starting: int = 0
    """Workers that are there and will serve: they start, or load their models."""


def workers_wanted(now: Situation, samples_per_worker: float, wait_seconds: float) -> int:
    """Return how many workers are wanted.

    Enough for all samples. If a sample waits too long nevertheless (the samples of a paced caller never are many), half
    as many again as there are; but no more than are there while some of them start, since those may be enough.

    Args:
        now: The situation.
        samples_per_worker: Samples for which one worker is wanted.
        wait_seconds: How long a sample may wait.
    """
    if not now.samples:
        return int(now.is_missed)
    wanted = math.ceil(now.samples / samples_per_worker)
    if now.oldest_seconds > wait_seconds:
        there = now.serving + now.starting
        wanted = max(wanted, there if now.starting else there + math.ceil(there * _GROWTH))
    return max(1, wanted)


class Workers:
    """The number of workers that are wanted, as a `Scale`.

    Args:
        dispatcher: Has the samples.
        fleet: Has the workers.

    Attributes:
        demand: Whether any worker is required.
    """

    metric = METRIC

    def __init__(self, dispatcher: Dispatcher, fleet: Fleet) -> None:
        self.demand = Demand()
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._missed_until = float("-inf")
        self._slots = 1

    def target(self, trigger: Trigger) -> float:
        """Return 1: the metric is a number of workers."""
        self._parameters(trigger)
        return 1.0

    def value(self, trigger: Trigger) -> float:
        """Return the number of workers that are wanted."""
        return float(workers_wanted(self.situation(time.monotonic()), *self._parameters(trigger)))

    def update(self) -> None:
        """Tell the demand what waits and runs now."""
        self.demand.set(self._dispatcher.waiting + self._dispatcher.in_flight)

    @contextlib.contextmanager
    def noticing(self) -> Iterator[None]:
        """Require a worker if a call inside fails because none can answer it."""
        try:
            yield
        except CodeAlignError as error:
            if error.code is grpc.StatusCode.UNAVAILABLE:
                self._missed_until = time.monotonic() + _MISSED_SECONDS
                self.demand.require(_MISSED_SECONDS)
            raise

    def situation(self, now: float) -> Situation:
        """Return the present situation."""
        since = [at for _, at in self._dispatcher.queues().values() if at is not None]
        starting = self._fleet.starting(now)
        return Situation(
            samples=self._dispatcher.waiting + self._dispatcher.in_flight,
            oldest_seconds=now - min(since) if since else 0.0,
            is_missed=now < self._missed_until,
            serving=len(self._fleet.workers) - starting,
            starting=starting,
        )

    def _parameters(self, trigger: Trigger) -> tuple[float, float]:
        slots = [model.slots for worker in self._fleet.workers.values() for model in worker.models.values()]
        self._slots = max(slots, default=self._slots)
        return (
            trigger.positive(SAMPLES_PER_WORKER, float(self._slots)),
            trigger.positive(WAIT_SECONDS, _DEFAULT_WAIT_SECONDS),
        )
