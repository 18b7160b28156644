"""The steps of a loop, as shown with their run."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.enums import value_name
from codealign.cli.terminal import printable

_ENDED = (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED)


def has_settled(status: api.RunStatus) -> bool:
    """Return whether the run, its loop and, in its current round, its series will not change any more on their own."""
    if status.series.state == pb.RUN_STATE_RUNNING:
        return current_run(status) != status.id
    if status.state == pb.RUN_STATE_RUNNING:
        return False
    follows = status.state == pb.RUN_STATE_SUCCEEDED and status.HasField("loop")
    return not follows or status.loop.state != pb.RUN_STATE_RUNNING


def current_run(status: api.RunStatus) -> str:
    """Return the id of the run of the last round that has begun; of the run itself if it is in no series."""
    rounds = status.series.rounds
    return rounds[-1].run if rounds else status.id


def outcome(status: api.RunStatus) -> pb.RunState.ValueType:
    """Return the state of the run's series if there is one; or of its loop if the run has succeeded; or of the run."""
    if status.HasField("series"):
        return status.series.state
    follows = status.state == pb.RUN_STATE_SUCCEEDED and status.HasField("loop")
    return status.loop.state if follows else status.state


def steps_table(loop: api.LoopStatus) -> Table:
    """Return every step with its progress."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("then", "state", "done", ""):
        table.add_column(column)
    for cells in step_cells(loop):
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def step_cells(loop: api.LoopStatus) -> list[tuple[str, str, str, str]]:
    """Return name, state ("" if not started), progress ("28/164") and message of each step."""
    return [(step.name, _state(step), _done(step), step.message) for step in loop.steps]


def current_step(loop: api.LoopStatus) -> api.LoopStep | None:
    """Return the step that is being worked on; None between two steps, before the first and after the last."""
    return next((step for step in loop.steps if step.state not in (*_ENDED, pb.RUN_STATE_UNSPECIFIED)), None)


def steps_line(loop: api.LoopStatus) -> str:
    """Return the current step, or the outcome of the loop, in one line."""
    if step := current_step(loop):
        return printable(" ".join(part for part in (step.name, _done(step), step.message) if part))
    if loop.state == pb.RUN_STATE_RUNNING or not loop.message:
        return ""
    return printable(f"{value_name(pb.RunState.DESCRIPTOR, loop.state).lower()}: {loop.message}")


def _state(step: api.LoopStep) -> str:
    return value_name(pb.RunState.DESCRIPTOR, step.state).lower() if step.state != pb.RUN_STATE_UNSPECIFIED else ""


def _done(step: api.LoopStep) -> str:
    return f"{step.done:,}/{step.total:,}" if step.total else ""
