"""Runs and experiments are found by what people call them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import CodeAlignError, InvalidArgument, NotFound
from codealign.coordinator.ground.finding import find
from fakes import FakeDataset

ONE = records.complete(pb.Record(kind=pb.KIND_RUN, run=pb.Run(name="one", seed=1)))
TWO = records.complete(pb.Record(kind=pb.KIND_RUN, run=pb.Run(name="two", seed=2)))
SAME = records.complete(pb.Record(kind=pb.KIND_RUN, run=pb.Run(name="two", seed=3)))
LOOP = records.complete(pb.Record(kind=pb.KIND_LOOP, parents=[ONE.id], loop=pb.Loop()))
EXPERIMENT = records.complete(pb.Record(kind=pb.KIND_EXPERIMENT, experiment=pb.Experiment(name="one")))


def dataset() -> FakeDataset:
    made = FakeDataset()
    made.put(ONE, TWO, SAME, LOOP, EXPERIMENT)
    return made


async def found(text: str, kind: pb.Kind.ValueType = pb.KIND_RUN, **assigned: Any) -> pb.Record:
    return await find(dataset(), assigned, kind, text, "codealign ls")


@pytest.mark.parametrize("text", ["one", ONE.id, ONE.id[:6]])
async def test_an_id_its_beginning_and_a_name_find_a_run(text: str) -> None:
    assert await found(text) == ONE


async def test_an_experiment_of_the_same_name_is_another_matter() -> None:
    assert await found("one", pb.KIND_EXPERIMENT) == EXPERIMENT


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", InvalidArgument, "run: must be an id, an id's first digits, or a name"),
        ("three", NotFound, "no run matches 'three'; see `codealign ls` for the ids"),
        ("two", NotFound, "2 runs match 'two'"),
        (ONE.id[:5], NotFound, "no run matches"),
        (LOOP.id, NotFound, "no run matches"),
    ],
)
async def test_what_is_none_or_several_is_refused(text: str, error: type[CodeAlignError], says: str) -> None:
    with pytest.raises(error) as caught:
        await found(text)
    assert says in caught.value.message


async def test_a_subject_of_this_coordinator_is_found_while_the_store_is_away() -> None:
    away = dataset()
    away.control.go_away()
    assigned: Any = {ONE.id: SimpleNamespace(subject=ONE), LOOP.id: SimpleNamespace(subject=LOOP)}
    assert await find(away, assigned, pb.KIND_RUN, ONE.id, "codealign ls") == ONE
    with pytest.raises(CodeAlignError, match="connection refused"):
        await find(away, assigned, pb.KIND_RUN, LOOP.id, "codealign ls")
