"""How long each part of a run took, as its progress shows it: the data, and each step that follows."""

from __future__ import annotations

import re

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.loop_steps import current_step
from codealign.cli.terminal import duration, printable

_NUMBERED = re.compile(r" \(\d+ of \d+\)$")


def part_of(status: api.RunStatus) -> str:
    """Return the part that is being worked on: "data", "train", ...; empty between two parts and at the end."""
    if status.state == pb.RUN_STATE_RUNNING:
        return "data"
    step = current_step(status.loop) if status.state == pb.RUN_STATE_SUCCEEDED else None
    return _NUMBERED.sub("", step.name) if step else ""


class PartTimes:
    """Seconds of each part, in the order in which they began."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._part, self._since = "", 0.0

    def update(self, status: api.RunStatus, now: float) -> None:
        """Count the time since the last call for the part that was being worked on then.

        Args:
            status: What is known now.
            now: On a steady clock.
        """
        if self._part:
            self._seconds[self._part] = self._seconds.get(self._part, 0.0) + now - self._since
        self._part, self._since = part_of(status) or self._part, now
        if status.loop.state != pb.RUN_STATE_RUNNING and status.state != pb.RUN_STATE_RUNNING:
            self._part = ""

    def line(self) -> str:
        """Return all parts in one line, "data 1 min 10 s, train 35 s"; empty where there are fewer than two."""
        if len(self._seconds) < 2:
            return ""
        return printable(", ".join(f"{part} {duration(seconds)}" for part, seconds in self._seconds.items()))
