"""Time-outs caused by a lack of processor time are repeated once with nothing else running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb

from .conftest import name_of
from .scripted import Bench, Scripted, settled


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.close()


STARVED: dict[str, Any] = {
    "verdict": pb.VERDICT_TIMED_OUT,
    "wall_seconds": 10.0,
    "cpu_seconds": 0.5,
    "stalled_seconds": 7.0,
}


async def test_a_starved_program_is_run_again_with_nothing_beside_it(bench: Bench) -> None:
    one, two = Scripted("one", slots=2), Scripted("two")
    for runner in (one, two):
        await bench.add(runner)
    call = await bench.call("starved")
    others = [await bench.call(name) for name in "xy"]
    runner = next(each for each in (one, two) if "starved" in each.has)
    await runner.finish("starved", **STARVED)
    waits = await bench.call("waits")
    assert [*one.started, *two.started].count("starved") == 1, "others still run"
    for each in (one, two):
        for name in set(each.has):
            await each.finish(name)
    assert sorted([*one.has, *two.has]) == ["starved"], "nothing runs beside it"
    runner = next(each for each in (one, two) if "starved" in each.has)
    assert runner.requests[-1].limits.wall_seconds == 30
    await runner.finish("starved", pb.VERDICT_FAILED_ASSERTION, detail="assert x")
    result = await call
    assert name_of(result) == "FAILED_ASSERTION"
    assert result.detail.startswith("assert x (run alone")
    for each in (one, two):
        for name in set(each.has):
            await each.finish(name)
    assert [name_of(await other) for other in (*others, waits)] == ["PASSED"] * 3


async def test_the_second_time_out_is_the_verdict(bench: Bench) -> None:
    runner = Scripted("r")
    await bench.add(runner)
    call = await bench.call("x")
    await runner.finish("x", **STARVED)
    await runner.finish("x", **{**STARVED, "wall_seconds": 30.0})
    result = await call
    assert name_of(result) == "TIMED_OUT"
    assert "run alone" in result.detail


async def test_a_program_that_sleeps_has_its_verdict_at_once(bench: Bench) -> None:
    runner = Scripted("r")
    await bench.add(runner)
    call = await bench.call("x")
    await runner.finish("x", **{**STARVED, "stalled_seconds": 0.0})
    assert name_of(await call) == "TIMED_OUT"
    assert runner.started == ["x"]


async def test_a_runner_elsewhere_is_a_machine_of_its_own(bench: Bench) -> None:
    one, two = Scripted("one", backend="grpc"), Scripted("two", backend="grpc")
    await bench.add(one)
    await bench.call("starved")
    await bench.add(two)
    await bench.call("beside")
    await one.finish("starved", **STARVED)
    assert (list(one.has), list(two.has)) == (["starved"], ["beside"])


async def test_a_starved_program_whose_machine_is_gone_runs_alone_on_another(bench: Bench) -> None:
    one, two = Scripted("one", slots=2, backend="grpc"), Scripted("two", backend="grpc")
    await bench.add(one)
    call = await bench.call("starved")
    await bench.call("beside")
    await one.finish("starved", **STARVED)
    await one.lose()
    await bench.add(two)
    assert list(two.has) == ["starved"]
    await two.finish("starved")
    assert name_of(await call) == "PASSED"
    assert list(two.has) == ["beside"]


async def test_a_starved_program_whose_caller_goes_away_holds_nobody_back(bench: Bench) -> None:
    runner = Scripted("r", slots=2)
    await bench.add(runner)
    starved = await bench.call("starved")
    await bench.call("long")
    await runner.finish("starved", **STARVED)
    await bench.call("waits")
    assert list(runner.has) == ["long"]
    starved.cancel()
    await settled()
    assert sorted(runner.has) == ["long", "waits"]
