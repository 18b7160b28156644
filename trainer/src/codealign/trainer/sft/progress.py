"""The program's progress and outcome files: events as JSON lines, and finally one outcome.

The progress file survives restarts. A `started` event says from which checkpoint the following steps continue, so that
readers drop later steps of an earlier process.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MAX_POINTS = 1000


class ProgressWriter:
    """Appends events to a file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        # Terminate a line that a killed process left unfinished, so that it does not corrupt the next one.
        if self._file.tell():
            with path.open("rb") as existing:
                existing.seek(-1, 2)
                if existing.read(1) != b"\n":
                    self._file.write(b"\n")
                    self._file.flush()

    def write(self, event: str, **fields: object) -> None:
        """Append one event; ignore a full disk, which must not end the training here."""
        line = json.dumps({"event": event, **fields}, sort_keys=True) + "\n"
        with contextlib.suppress(OSError):
            self._file.write(line.encode())
            self._file.flush()


@dataclass(frozen=True, slots=True)
class Point:
    """Loss and learning rate of one step."""

    step: int
    loss: float
    learning_rate: float


@dataclass
class Progress:
    """Progress according to the events."""

    starts: int = 0
    """Number of starts of the program."""
    resumed_step: int = 0
    """The checkpoint from which the last start continued. 0: none."""
    total_steps: int = 0
    rows: int = 0
    truncated_rows: int = 0
    dropped_rows: int = 0
    points: list[Point] = field(default_factory=list)
    tokens_per_second: float = 0.0
    seconds_per_step: float = 0.0
    trained_tokens: int = 0
    checkpoint_step: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The last step."""
        return self.points[-1].step if self.points else self.resumed_step

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the remaining time, from the last steps."""
        if not self.seconds_per_step or not self.total_steps:
            return None
        return max(0, self.total_steps - self.step) * self.seconds_per_step

    def add(self, event: dict[str, Any]) -> None:
        """Apply the next event."""
        match event.get("event"):
            case "started":
                self._start(event)
            case "step":
                self.points.append(Point(event["step"], event["loss"], event["learning_rate"]))
                self.tokens_per_second = event["tokens_per_second"]
                self.seconds_per_step = event["seconds_per_step"]
                self.trained_tokens = event["trained_tokens"]
            case "checkpoint":
                self.checkpoint_step = event["step"]
            case "checkpoint_left_out":
                self._note(
                    "checkpoints are skipped while the previous one is still being uploaded: raise "
                    "spec.checkpoint_steps to space them evenly"
                )
            case "note":
                self._note(event["text"])

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _start(self, event: dict[str, Any]) -> None:
        self.starts += 1
        self.resumed_step = self.checkpoint_step = event["resumed_step"]
        for name in ("total_steps", "rows", "truncated_rows", "dropped_rows", "trained_tokens"):
            setattr(self, name, event[name])
        self.points = [point for point in self.points if point.step <= self.resumed_step]
        self.seconds_per_step = self.tokens_per_second = 0.0


class ProgressReader:
    """Reads a growing file of events.

    Args:
        path: The file; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode: int | None = None
        self.progress = Progress()

    def read(self) -> bool:
        """Read new events; return whether there were any."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if self._inode not in (None, found.st_ino) or found.st_size < self._offset:
                    self._offset, self.progress = 0, Progress()  # removed and created again
                self._inode = found.st_ino
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            if self._inode is not None:
                self._inode = 0  # the next file is a new one, even if it reuses the inode
            return False
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            # Ignore a line that was truncated by a kill.
            with contextlib.suppress(ValueError, KeyError):
                self.progress.add(json.loads(line))
        return bool(whole)


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Return at most `most` of the points, evenly spaced, including the first and the last."""
    if len(points) <= most:
        return list(points)
    stride = (len(points) - 1) / (most - 1)
    return [points[round(at * stride)] for at in range(most)]


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    state: Literal["succeeded", "failed"]
    message: str = ""
    final_loss: float = 0.0
    steps: int = 0
    revision: str = ""
    """Revision of the trained model, if the reader cannot access the model itself."""


def outcome_json(outcome: Outcome) -> bytes:
    """Return the content of the outcome file."""
    fields = {key: value for key, value in vars(outcome).items() if key != "revision" or value}
    return json.dumps(fields, sort_keys=True).encode()


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write the outcome atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    draft.write_bytes(outcome_json(outcome))
    draft.replace(path)


def read_outcome(path: Path) -> Outcome | None:
    """Return the outcome, or None if there is none yet."""
    try:
        return outcome_of(path.read_bytes())
    except OSError:
        return None


def outcome_of(content: bytes) -> Outcome | None:
    """Parse an outcome file; return None if it is invalid."""
    try:
        return Outcome(**json.loads(content))
    except (ValueError, TypeError):
        return None
