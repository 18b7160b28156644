"""Benchmark scores of the rounds of a series, each compared with the round before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.evaluation import prompts
from codealign.coordinator.evaluation.history import boards_of, comparisons
from codealign.coordinator.evaluation.operations import asked_for
from codealign.coordinator.evaluation.results import Board
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.loops.request import evaluations_of


async def reports(
    store: RunStore, series: pb.RoundSeries, base: pb.ModelChoice, rounds: Sequence[pb.Round]
) -> list[api.RoundReport]:
    """Return the evaluations and comparisons of consecutive rounds.

    Args:
        store: Store of any collection.
        series: The series.
        base: The model that the first of these rounds is compared with if it is round 1.
        rounds: The rounds, in order.
    """
    revisions = [base.revision, *(each.tuned.revision for each in rounds if each.tuned.revision)]
    boards = await boards_of(store, list(dict.fromkeys(revisions)))
    known = [(board, await asyncio.to_thread(board.evaluation)) for board in boards]
    found, before = [], (base, prompts.BASE)
    for each in rounds:
        report = api.RoundReport(round=each)
        if each.tuned.revision:
            own = _of(known, series, each.tuned, prompts.TUNED)
            report.evaluations.extend(evaluation for _, evaluation in own)
            if each.number == 1 or before[1] == prompts.TUNED:
                pair = [*_of(known, series, *before), *own]
                report.comparisons.extend(comparisons(before[0].revision, [each.tuned.revision], pair))
            before = each.tuned, prompts.TUNED
        found.append(report)
    return found


def _of(
    known: Sequence[tuple[Board, api.Evaluation]], series: pb.RoundSeries, model: pb.ModelChoice, style: str
) -> list[tuple[Board, api.Evaluation]]:
    """Return a model's evaluations that were made with the settings of the series."""
    settings = evaluations_of(series.loop.evaluations, model, style)
    return [
        (board, evaluation)
        for board, evaluation in known
        if evaluation.model_revision == model.revision and any(asked_for(board, each) for each in settings)
    ]
