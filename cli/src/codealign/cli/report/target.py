"""What a run with a target did: why it ended, what leaving instructions saved, and how the mix of tasks moved."""

from __future__ import annotations

from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.report.wording import percent
from codealign.cli.terminal import count

_ENDS = {
    "rows": "The target in rows was reached",
    "tokens": "The token budget was used up",
    "device hours": "The device hours were used up",
    "seeds": "All seeds and attempts were used up",
}


@dataclass(frozen=True)
class Reached:
    """How much of a part of the target is reached."""

    name: str
    reached: str
    wanted: str
    share: float
    """Fraction of 1; more if the run went beyond."""


@dataclass(frozen=True)
class Share:
    """Share of a difficulty or category among instructions and rows."""

    property: str
    value: str
    instructions: int
    rows: int
    of_instructions: str
    of_rows: str


def sentences(summary: pb.TargetSummary) -> list[str]:
    """Return what the run did, in sentences; empty if it had no target or has not selected rows."""
    if not summary.why:
        return []
    each = f", {summary.tokens / summary.rows:,.0f} per row" if summary.rows else ""
    found = [
        f"{_ENDS.get(summary.why, summary.why)}: {count(summary.rows, 'row')} from {count(summary.seeds, 'seed')} for "
        f"{count(summary.tokens, 'token')}{each}."
    ]
    if summary.left_instructions:
        found.append(
            f"{count(summary.left_instructions, 'instruction')} without a row kept "
            f"{count(summary.left_attempts, 'attempt')} undrawn."
        )
        if summary.left_tokens_elsewhere:
            saved = summary.left_tokens - summary.left_tokens_elsewhere
            found.append(
                f"By the pass rates of this run, drawing them out would cost about {summary.left_tokens:,} tokens for "
                f"about {summary.left_rows:,.0f} rows, which cost {summary.left_tokens_elsewhere:,} tokens through new "
                f"seeds: {'about ' + format(saved, ',') + ' tokens saved' if saved > 0 else 'nothing saved'}."
            )
    return found


def reached(status: api.RunStatus, summary: pb.TargetSummary) -> list[Reached]:
    """Return what a run has reached of each part of its target that is known now.

    A forecast knows all parts, but exists only while a coordinator draws. The summary has no device hours.
    """
    target, now = status.config.target, status.forecast
    if status.HasField("forecast"):
        rows, tokens, hours = now.rows, now.tokens, now.device_hours
    elif summary.why:
        rows, tokens, hours = summary.rows, summary.tokens, None
    else:
        return []
    found = []
    if target.rows:
        found.append(Reached("rows", f"{rows:,}", f"{target.rows:,}", rows / target.rows))
    if target.tokens:
        found.append(Reached("tokens", f"{tokens:,}", f"{target.tokens:,}", tokens / target.tokens))
    if target.device_hours and hours is not None:
        wanted = f"{target.device_hours:g}"
        found.append(Reached("device hours", f"{hours:.2f}", wanted, hours / target.device_hours))
    return found


def shares(summary: pb.TargetSummary) -> list[Share]:
    """Return the mix of the run's instructions and that of its rows."""
    totals = {
        name: (
            sum(each.instructions for each in summary.mix if each.property == name),
            sum(each.rows for each in summary.mix if each.property == name),
        )
        for name in {each.property for each in summary.mix}
    }
    return [
        Share(
            each.property,
            each.value,
            each.instructions,
            each.rows,
            percent(each.instructions / max(1, totals[each.property][0])),
            percent(each.rows / max(1, totals[each.property][1])),
        )
        for each in summary.mix
    ]
