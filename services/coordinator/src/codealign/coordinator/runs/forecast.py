"""What a run with a target is going to reach, at measured rates."""

from __future__ import annotations

from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.runs.order import Order

_HOUR = 3600.0


@dataclass(frozen=True)
class Standing:
    """What the scheduler does not know about a run in progress."""

    seeds_left: float | None
    """Seeds that are expected to meet the rules still. None: unknown."""
    attempts_per_second: float
    """Attempts at instructions over the last minute. 0: unknown."""
    device_hours: float
    """Device hours so far."""


def forecast(target: pb.Target, order: Order, standing: Standing) -> api.Forecast:
    """Return the forecast of a run in progress."""
    found = api.Forecast(rows=order.kept, tokens=order.spent, device_hours=standing.device_hours)
    each = order.tokens_per_row()
    if each is None:
        found.text = f"{_so_far(target, found)}; no forecast yet"
        return found
    found.tokens_per_row = each
    ends = [order.within_reach(standing.seeds_left)] if standing.seeds_left is not None else []
    suffices = not target.rows or not ends or ends[0] >= target.rows
    if target.rows:
        ends.append(target.rows)
    if target.tokens:
        ends.append(order.kept + max(0, target.tokens - order.spent) / each)
    attempts = standing.attempts_per_second
    rate = attempts * order.tokens_per_attempt_in_all() if attempts else 0.0
    if target.HasField("device_hours"):
        seconds = max(0.0, target.device_hours - standing.device_hours) * _HOUR / max(1, target.devices)
        if rate:
            ends.append(order.kept + seconds * rate / each)
    rows = max(float(order.kept), min(ends)) if ends else 0.0
    found.expected_rows = round(rows)
    left = (rows - order.kept) * each if rows else 0.0
    found.expected_tokens = order.spent + round(left)
    if rate and rows:
        found.seconds_left = left / rate
    words = [_so_far(target, found), f"{each:,.0f} tokens per further row"]
    if rows:
        words.append(f"about {round(rows):,} rows and {found.expected_tokens:,} tokens at the end")
    if found.HasField("seconds_left"):
        words.append(f"in about {duration(found.seconds_left)}")
    if not suffices:
        words.append(f"the seeds will not suffice for {target.rows:,} rows")
    found.text = "; ".join(words)
    return found


def _so_far(target: pb.Target, found: api.Forecast) -> str:
    rows = f"{found.rows:,} of {target.rows:,} rows" if target.rows else f"{found.rows:,} rows"
    tokens = f"{found.tokens:,} of {target.tokens:,} tokens" if target.tokens else f"{found.tokens:,} tokens"
    hours = f"{found.device_hours:.2f} of {target.device_hours:g} device hours"
    return ", ".join([rows, tokens, *([hours] if target.HasField("device_hours") else [])])


def duration(seconds: float) -> str:
    """Return a duration in words: "2 h 10 min", "4 min", "30 s"."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 60 else f"{seconds:.0f} s"
