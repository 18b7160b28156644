"""A loop's steps, as a person sees them beside their run."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.enums import value_name
from codealign.cli.terminal import printable

_ENDED = (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED)


def has_settled(status: api.RunStatus) -> bool:
    """Nothing more will happen to the run and its loop by themselves."""
    if status.state == pb.RUN_STATE_RUNNING:
        return False
    follows = status.state == pb.RUN_STATE_SUCCEEDED and status.HasField("loop")
    return not follows or status.loop.state != pb.RUN_STATE_RUNNING


def outcome(status: api.RunStatus) -> pb.RunState.ValueType:
    """The state of the run, and where it has succeeded of its loop."""
    follows = status.state == pb.RUN_STATE_SUCCEEDED and status.HasField("loop")
    return status.loop.state if follows else status.state


def steps_table(loop: api.LoopStatus) -> Table:
    """Every step with how far it is."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("then", "state", "done", ""):
        table.add_column(column)
    for cells in step_cells(loop):
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def step_cells(loop: api.LoopStatus) -> list[tuple[str, str, str, str]]:
    """Of every step its name, its state (empty: not begun), how far it is ("28/164") and its message."""
    return [(step.name, _state(step), _done(step), step.message) for step in loop.steps]


def steps_line(loop: api.LoopStatus) -> str:
    """The step that is being worked on, or what became of the loop, in one line."""
    for step in loop.steps:
        if step.state not in (*_ENDED, pb.RUN_STATE_UNSPECIFIED):
            return printable(" ".join(part for part in (step.name, _done(step), step.message) if part))
    if loop.state == pb.RUN_STATE_RUNNING or not loop.message:
        return ""
    return printable(f"{value_name(pb.RunState.DESCRIPTOR, loop.state).lower()}: {loop.message}")


def _state(step: api.LoopStep) -> str:
    return value_name(pb.RunState.DESCRIPTOR, step.state).lower() if step.state != pb.RUN_STATE_UNSPECIFIED else ""


def _done(step: api.LoopStep) -> str:
    return f"{step.done:,}/{step.total:,}" if step.total else ""
