"""Stored evaluations, and comparisons of models based on them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.evaluation.prompts import BASE, TUNED
from codealign.coordinator.evaluation.request import NAME
from codealign.coordinator.evaluation.results import Board, comparison, settings_of
from codealign.coordinator.evaluation.work import COLLECTION
from codealign.coordinator.ground.store import RunStore

_SAMPLING = ("benchmark", "benchmark_sha256", "judge", "max_tokens", "runners", "seed", "temperature")
"""Settings that two evaluations must share to be compared; prompt styles may differ."""


async def boards_of(store: RunStore, revisions: Collection[str]) -> list[Board]:
    """Return every evaluation of these models, ordered by model (as given), benchmark and style.

    A board's number of samples is the least of its problems': some may have more samples, from another call.
    """
    found = []
    async for config in store.scan(dataset.ScanRequest(kind=pb.KIND_STAGE_CONFIG, collection=COLLECTION)):
        if config.stage_config.name == NAME and settings_of(config)["model_revision"] in revisions:
            board = await _board(store, config)
            if board.outcomes:
                found.append(board)
    order = list(revisions)

    def place(board: Board) -> tuple[int, str, str, str]:
        settings = board.settings
        rank = order.index(settings["model_revision"])
        return rank, settings["benchmark"], settings["prompt_style"], board.config.id

    return sorted(found, key=place)


async def _board(store: RunStore, config: pb.Record) -> Board:
    board = Board(config, model="", samples=0, problem_ids=())
    request = dataset.ScanRequest(kind=pb.KIND_EVALUATION_RESULT, stage_config_id=config.id)
    async for record in store.scan(request):
        board.add(record)
        board.model = board.model or record.provenance.model
    board.samples = min((len(found) for found in board.outcomes.values()), default=0)
    board.problem_ids = tuple(sorted(board.outcomes, key=_numbered))
    board.total = int(board.settings["problems"])
    return board


def _numbered(problem_id: str) -> tuple[str, int, str]:
    name, _, number = problem_id.rpartition("/")
    return name, int(number) if number.isdecimal() else -1, number


def comparisons(
    base: str, tuned: Iterable[str], evaluations: Iterable[tuple[Board, api.Evaluation]]
) -> list[api.Comparison]:
    """Compare each tuned model with the base model, for each benchmark and sampling that both have.

    If a model was evaluated in both styles, "base" counts for the base model and "tuned" for the tuned one.

    Args:
        base: Revision of the base model.
        tuned: Revisions of the tuned models.
        evaluations: Evaluations of all these models.
    """
    by_revision: dict[str, dict[str, dict[str, Board]]] = {}
    for board, evaluation in evaluations:
        settings = board.settings
        key = json.dumps([settings.get(name) for name in _SAMPLING])
        styles = by_revision.setdefault(evaluation.model_revision, {}).setdefault(key, {})
        styles[evaluation.prompt_style] = board
    found = []
    for revision in tuned:
        for key, styles in by_revision.get(revision, {}).items():
            others = by_revision.get(base, {}).get(key)
            if others is None or revision == base:
                continue
            pair = comparison(others.get(BASE) or others[TUNED], styles.get(TUNED) or styles[BASE])
            if pair is not None:
                found.append(pair)
    return found
