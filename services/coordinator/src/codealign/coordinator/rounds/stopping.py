"""Stop rules of a series: pure functions that return why it ends, or an empty string."""

from __future__ import annotations

from collections.abc import Iterable

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb


def data_reason(stop: pb.StopRules, number: int, data: pb.RoundData, first: pb.RoundData) -> str:
    """Return why a round's data end the series.

    Args:
        stop: The rules, with defaults filled in.
        number: Number of the round.
        data: Measures of the round.
        first: Measures of the first round.
    """
    if not data.version:
        return "it kept no rows; use more seeds" if number == 1 else "it kept no rows"
    for name, value, reference, least, setting in (
        ("the pass rate of its responses", data.pass_rate, first.pass_rate, stop.pass_rate, "pass_rate"),
        (
            "distinct-2 of its instructions",
            data.instructions.distinct_2,
            first.instructions.distinct_2,
            stop.diversity,
            "diversity",
        ),
        (
            "distinct-2 of its responses",
            data.responses.distinct_2,
            first.responses.distinct_2,
            stop.diversity,
            "diversity",
        ),
    ):
        if value < least * reference:
            return (
                f"{name} is {value:.3f}, below {least:g} of round 1's {reference:.3f} (setting stop.{setting}; 0 "
                "switches it off)"
            )
    return ""


def score_reason(stop: pb.StopRules, number: int, compared: Iterable[api.Comparison]) -> str:
    """Return why a round's scores end the series.

    Args:
        stop: The rules, with defaults filled in.
        number: Number of the round.
        compared: Comparisons of its model with the previous round's.
    """
    worse = [each for each in compared if each.difference < 0 and each.p_value < stop.worse_p]
    if not worse:
        return ""
    than = f"round {number - 1}'s" if number > 1 else "the base model"
    told = "; ".join(
        f"{each.benchmark} {100 * each.difference:+.1f} points, p = {each.p_value:.2g} ({each.test}, {each.problems} "
        "problems)"
        for each in worse
    )
    return f"its model is worse than {than} beyond noise: {told} (setting stop.worse_p; 0 switches it off)"
