"""Series requests: validation, the RoundSeries record, and the run and the loop of each round."""

from __future__ import annotations

import math
from collections.abc import Iterator

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import InvalidArgument
from codealign.common.text import unknown
from codealign.coordinator import pipelines
from codealign.coordinator.loops.models import Located
from codealign.coordinator.runs.config import names_the_same, run_records

MAX_ROUNDS = 100
EVERYTHING, INSTRUCTIONS = GENERATES = ("everything", "instructions")
"""Values of RoundSeries.generates, the default first."""
BASE, PREVIOUS = TRAIN_FROM = ("base", "previous")
"""Values of RoundSeries.train_from, the default first."""
WORSE_P, PASS_RATE, DIVERSITY = 0.05, 0.5, 0.5
"""Defaults of StopRules."""


def checked(series: pb.RoundSeries, loop: pb.Loop | None, run: pb.Run) -> pb.RoundSeries:
    """Validate a series and fill in its defaults.

    Args:
        series: The request's series.
        loop: The request's loop, or None.
        run: The request's run.

    Raises:
        InvalidArgument: Names every invalid field by its path in the request.
    """
    if wrong := [*_violations(series), *_misfits(series, loop, run)]:
        raise InvalidArgument(violations=wrong)
    found = pb.RoundSeries()
    found.CopyFrom(series)
    found.generates = series.generates or EVERYTHING
    found.train_from = series.train_from or BASE
    stop = pb.StopRules(worse_p=WORSE_P, pass_rate=PASS_RATE, diversity=DIVERSITY)
    stop.MergeFrom(series.stop)
    found.stop.CopyFrom(stop)
    return found


def _violations(series: pb.RoundSeries) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a series by itself."""
    if not 1 <= series.number <= MAX_ROUNDS:
        yield "series.number", f"is {series.number}; must be from 1 to {MAX_ROUNDS} rounds"
    for field, known in (("generates", GENERATES), ("train_from", TRAIN_FROM)):
        value = getattr(series, field)
        if value and value not in known:
            yield f"series.{field}", unknown("value", value, known)
    for field in ("worse_p", "pass_rate", "diversity"):
        share = getattr(series.stop, field)
        if not (math.isfinite(share) and 0 <= share <= 1):
            yield f"series.stop.{field}", f"is {share:g}; must be from 0 (never stop for it) to 1"
    if series.HasField("loop"):
        yield "series.loop", "must not be set: it is taken from the request's loop"


def _misfits(series: pb.RoundSeries, loop: pb.Loop | None, run: pb.Run) -> Iterator[tuple[str, str]]:
    """Yield what in the run and the loop a series cannot work with."""
    if loop is None or not loop.evaluations:
        field = "loop" if loop is None else "loop.evaluations"
        yield field, "must be set in a series: without evaluations, a worse round cannot be noticed"
    for index, stage in enumerate(run.stages):
        if stage.HasField("model") and not names_the_same(stage.model, run.model):
            yield (
                f"config.stages[{index}].model",
                "must not be set in a series: the tuned model generates; to keep responses with the base model, set "
                'series.generates to "instructions"',
            )
    name = run.pipeline or pipelines.DEFAULT
    pipeline = pipelines.get(name) if name in pipelines.names() else None
    if pipeline is not None and not pipeline.writing:
        yield "series", f"must not be set: no model writes in pipeline {name}, so every round would have the same data"
        return
    if series.generates != INSTRUCTIONS:
        return
    if loop is not None and loop.one_model:
        yield (
            "series.generates",
            'is "instructions", which needs the base model and the tuned model loaded at once, but loop.one_model '
            "allows only one",
        )
    if pipeline is not None and not any(_is_tuned(stage.makes) for stage in pipeline.writing):
        yield "series.generates", f'is "instructions", but pipeline {name} has no stage before its responses'


def _is_tuned(makes: pb.Kind.ValueType) -> bool:
    """Return whether a writing stage is the tuned model's if `generates` is "instructions"."""
    return makes != pb.KIND_RESPONSE


def series_record(run: pb.Record, series: pb.RoundSeries, loop: pb.Loop, source: str) -> pb.Record:
    """Return the RoundSeries record. Identical series of the same run are the same record.

    Args:
        run: The first round's Run record.
        series: Validated series, from `checked`.
        loop: Validated loop.
        source: Location that inference loaded the run's model from.
    """
    body = pb.RoundSeries()
    body.CopyFrom(series)
    body.loop.CopyFrom(loop)
    body.loop.training.model, body.loop.training.model_revision = source, run.run.model.revision
    record = pb.Record(kind=pb.KIND_SERIES, parents=[run.id], round_series=body)
    record.key = records.content_hash(record)
    return records.complete(record)


def run_of_round(series: pb.Record, first: pb.Record, number: int, previous: Located | None) -> pb.Record:
    """Return the Run record of a round.

    It has the first round's settings, with versions and runner image, except for its name, its seed, which derives from
    the first round's, and its models.

    Args:
        series: The RoundSeries record.
        first: The first round's Run record.
        number: Number of the round, from 1.
        previous: The model tuned in the previous round; None in the first.
    """
    if previous is None:
        return first
    run = pb.Run()
    run.CopyFrom(first.run)
    run.name = f"round {number} of {first.run.name or first.id[:12]}"
    run.seed = records.seed_for(first.run.seed, "round", number)
    run.ClearField("rejudges")
    if series.round_series.generates == EVERYTHING:
        run.model.CopyFrom(previous.choice)
    else:
        makes = {stage.name: stage.makes for stage in pipelines.get(run.pipeline).writing}
        for settings in run.stages:
            if _is_tuned(makes[settings.stage]):
                settings.model.CopyFrom(previous.choice)
    return run_records(run)[1]


def generators(series: pb.RoundSeries, base: Located, previous: Located | None) -> list[Located]:
    """Return the models that a round's run generates with."""
    if previous is None:
        return [base]
    return [previous] if series.generates == EVERYTHING else [base, previous]


def loop_of_round(series: pb.Record, first: pb.Record, run: pb.Record, previous: Located | None) -> pb.Record:
    """Return the Loop record of a round; arguments as in `run_of_round`, with the round's own run.

    After the first round, only the tuned model is evaluated: it is compared with the previous round's.
    """
    body = pb.Loop()
    body.CopyFrom(series.round_series.loop)
    if previous is not None:
        body.tuned_only = True
        body.model.CopyFrom(first.run.model)
        if series.round_series.train_from == PREVIOUS:
            # It keeps the first model's name, from which the next tuned model's name derives: names do not grow.
            body.model.revision = previous.choice.revision
            body.training.model, body.training.model_revision = previous.source, previous.choice.revision
    record = pb.Record(kind=pb.KIND_LOOP, parents=[run.id, series.id], loop=body)
    record.key = records.content_hash(record)
    return records.complete(record)
