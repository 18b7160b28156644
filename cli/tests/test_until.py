"""`codealign run --until data`: the steps after the data that an earlier command left behind do not count."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.commands import run
from codealign.cli.loop import LoopChoices


@pytest.mark.parametrize(("until", "state"), [("data", pb.RUN_STATE_SUCCEEDED), ("training", pb.RUN_STATE_CANCELLED)])
def test_a_cancelled_loop_fails_only_a_command_that_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, pipeline: api.Pipeline, until: str, state: pb.RunState.ValueType
) -> None:
    stored = api.RunStatus(id="ab" * 16, state=pb.RUN_STATE_SUCCEEDED)
    stored.loop.state = pb.RUN_STATE_CANCELLED
    told: list[api.RunStatus] = []

    @contextlib.asynccontextmanager
    async def services(_: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(started=True)

    async def create(*_: Any) -> api.CreateRunResponse:
        return api.CreateRunResponse(run=stored, existed=True)

    async def nothing(*_: Any, **__: Any) -> None:
        pass

    async def described(*_: Any) -> api.Pipeline:
        return pipeline

    async def same(_: Any, loop: LoopChoices, __: Any) -> LoopChoices:
        return loop

    async def tell(_: Any, __: Any, status: api.RunStatus) -> None:
        told.append(status)

    monkeypatch.setattr(run, "_connected", services)
    monkeypatch.setattr(run, "_create", create)
    monkeypatch.setattr(run, "_tell", tell)
    monkeypatch.setattr(run, "chosen_pipeline", described)
    monkeypatch.setattr(run, "check_benchmarks", same)
    monkeypatch.setattr(run, "choose_model", nothing)
    monkeypatch.setattr(run, "run_config", lambda *_: pb.Run())
    loop = LoopChoices(until=until, training=training.TrainingSpec(), evaluations=())
    work: Any = SimpleNamespace(
        run_file=None,
        loop=loop,
        rounds=None,
        seeds="",
        collection="c",
        where=SimpleNamespace(explicit=""),
        given=SimpleNamespace(model=""),
        plan=False,
        options=None,
        choices=SimpleNamespace(file={}),
        file=None,
    )
    assert asyncio.run(run._run(work)) == state
    assert [status.HasField("loop") for status in told] == [until != "data"]
