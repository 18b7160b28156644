"""Progress of a run: a live table on a terminal; elsewhere a line when a stage begins or the state changes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as coordinator
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.enums import value_name
from codealign.cli.loop_steps import steps_line, steps_table
from codealign.cli.parts import PartTimes, part_of
from codealign.cli.terminal import duration, printable

PLAIN_SECONDS = 60.0
"""Without a terminal: seconds between two lines while no stage begins and no state changes."""
_BAR_CELLS = 16


def state_name(state: pb.RunState.ValueType) -> str:
    """Return a run's state in lower case: "running"."""
    return value_name(pb.RunState.DESCRIPTOR, state).lower()


_ON_THE_WAY = {
    pb.RUN_STATE_RUNNING: "starting",
    pb.RUN_STATE_PAUSED: "pausing",
    pb.RUN_STATE_CANCELLED: "cancelling",
}
_ENDED = (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED)
_Status = coordinator.RunStatus | coordinator.ExperimentStatus


def run_state(status: _Status) -> str:
    """Return the state of a run or an experiment, or the requested state that it has not reached yet: "pausing"."""
    state, wanted = status.state, status.wanted
    if wanted in _ON_THE_WAY and wanted != state and state not in _ENDED:
        return _ON_THE_WAY[wanted]
    return state_name(state)


def message_words(status: _Status) -> str:
    """Return the reason for the state, without repeating the state, or "" if there is none."""
    state = run_state(status)
    return "" if status.message == state else status.message.removeprefix(f"{state}: ")


def waiting_words(status: _Status) -> str:
    """Return what a run or an experiment is waiting for, or ""."""
    return f"waiting for {status.waiting_for}" if status.waiting_for else ""


def top_reasons(stage: coordinator.StageProgress, limit: int = 3) -> str:
    """Return the most frequent reasons for drops: "no-return 12, docstring 3, 2 others"."""
    ordered = sorted(stage.reasons.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{name} {number:,}" for name, number in ordered[:limit]]
    rest = sum(number for _, number in ordered[limit:])
    return ", ".join([*parts, f"{rest:,} others"] if rest else parts)


def _bar(stage: coordinator.StageProgress) -> Text:
    if stage.expected <= 0:
        return Text("")
    filled = min(_BAR_CELLS, int(_BAR_CELLS * stage.done / stage.expected))
    return Text.assemble(("━" * filled, "green"), ("━" * (_BAR_CELLS - filled), "bright_black"))


def progress_table(status: coordinator.RunStatus) -> Table:
    """Return a table with the numbers of every stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    table.add_column("")
    for column in ("done", "kept", "dropped", "in flight", "rate", "left", "retries"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("dropped for")
    for stage in status.stages:
        table.add_row(
            Text(printable(stage.stage)),
            _bar(stage),
            f"{stage.done:,}/{stage.expected:,}" if stage.expected else f"{stage.done:,}",
            f"{stage.kept:,}",
            f"{stage.dropped:,}",
            str(stage.in_flight or ""),
            f"{stage.rate:.1f}/s" if stage.rate else "",
            duration(stage.seconds_left) if stage.HasField("seconds_left") else "",
            str(stage.retries or ""),
            Text(printable(top_reasons(stage))),
        )
    return table


def headline(status: coordinator.RunStatus, seconds: float) -> Text:
    """Return the run's name, state, and seconds watched."""
    name = f" ({status.config.name})" if status.config.name else ""
    text = f"run {status.id[:12]}{name}: {run_state(status)}, {duration(seconds)}"
    parts = (text, message_words(status), waiting_words(status), status.forecast.text)
    return Text(printable(": ".join(part for part in parts if part)))


def plain_line(status: coordinator.RunStatus) -> str:
    """Return the run in one line, without stages that have not started."""
    parts = []
    for stage in status.stages:
        if not (stage.done or stage.in_flight):
            continue
        text = f"{stage.stage} {stage.done:,}/{stage.expected:,} kept {stage.kept:,}"
        if stage.dropped:
            text += f" dropped {stage.dropped:,} ({top_reasons(stage, 2)})"
        if stage.in_flight:
            text += f" in flight {stage.in_flight}"
        if stage.retries:
            text += f" retries {stage.retries}"
        if stage.HasField("seconds_left") and stage.done < stage.expected:
            text += f" left {duration(stage.seconds_left)}"
        parts.append(text)
    if status.forecast.text:
        parts.append(status.forecast.text)
    done = " | ".join(parts) or "nothing done yet"
    return printable(": ".join(part for part in (run_state(status), waiting_words(status), done) if part))


class ProgressDisplay:
    """Display of a run's progress.

    Args:
        console: Output console.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._notes: set[str] = set()
        self._last_line = ""
        self._last_time = float("-inf")
        self._last_state: tuple[object, ...] = ()
        self._through = False
        self._begun = 0
        self._parts = PartTimes()
        self._last = coordinator.RunStatus()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if self._last.loop.state == pb.RUN_STATE_SUCCEEDED and (took := self._parts.line()):
            self._console.print(Text(f"time: {took}"))

    def update(self, status: coordinator.RunStatus) -> None:
        """Show a new status, and each of its notes once."""
        for note in status.notes:
            if note not in self._notes:
                self._notes.add(note)
                self._console.print(Text(f"note: {printable(note)}", style="yellow"))
        now = time.monotonic()
        self._parts.update(status, now)
        self._last = status
        if self._live:
            follows = [steps_table(status.loop)] if status.HasField("loop") else []
            self._live.update(Group(headline(status, now - self._started), progress_table(status), *follows))
            return
        then = steps_line(status.loop) if status.HasField("loop") else ""
        if status.state == pb.RUN_STATE_SUCCEEDED:
            if not self._through:  # from here on what follows is told, and what is done is not told again
                self._through = True
                self._say(plain_line(status), now)
            line = ": ".join(part for part in (f"then {then}" if then else "", waiting_words(status)) if part)
            state: tuple[object, ...] = (state_name(status.loop.state), part_of(status), status.waiting_for)
        else:
            line = f"{plain_line(status)} | then {then}" if then else plain_line(status)
            begun = [stage.stage for stage in status.stages if stage.done or stage.in_flight]
            state = (run_state(status), len(begun), status.waiting_for)
            if len(begun) > self._begun and state[::2] == self._last_state[::2]:
                line = printable(f"{begun[-1]}: started")
            self._begun = len(begun)
        changed = state != self._last_state
        if line and line != self._last_line and (changed or now - self._last_time >= PLAIN_SECONDS):
            self._say(line, now)
            self._last_state = state

    def _say(self, line: str, now: float) -> None:
        self._console.print(Text(f"[{now - self._started:6.0f} s] {line}"))
        self._last_line, self._last_time = line, now
