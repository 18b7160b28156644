"""The metric by which runners are scaled: executions that wait or run, per slot of a runner."""

from __future__ import annotations

from collections.abc import Callable

from codealign.common.scaling.demand import Demand
from codealign.common.scaling.servicer import Trigger

METRIC = "codealign-sandbox-executions"
TARGET = "targetPerReplica"
"""Key in a trigger's metadata: executions per replica. Default: the replica's slots."""


class Executions:
    """The number of executions that wait or run.

    Args:
        demand: Has that number.
        slots_per_replica: Returns the concurrent executions of one runner.
    """

    metric = METRIC

    def __init__(self, demand: Demand, slots_per_replica: Callable[[], int]) -> None:
        self._demand = demand
        self._slots_per_replica = slots_per_replica

    def target(self, trigger: Trigger) -> float:
        """Return the executions per runner."""
        return trigger.positive(TARGET, float(self._slots_per_replica()))

    def value(self, trigger: Trigger) -> float:
        """Return the executions that wait or run."""
        self.target(trigger)  # which checks the metadata
        return float(self._demand.count)
