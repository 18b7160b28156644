"""A worker is ready when it has what gateways want, and hands back what it cannot finish."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import Aborted
from codealign.common.health import Readiness
from codealign.inference.duty import Duty, duty_of

BASE, TUNED = pb.WantedModel(name="base"), pb.WantedModel(name="tuned")


async def told(duty: Duty, readiness: Readiness, wanted: Collection[pb.WantedModel], *loaded: str) -> bool:
    await duty.told(list(wanted), loaded)
    return readiness.ready


async def test_it_is_ready_when_all_that_is_wanted_is_loaded_and_then_stays_so() -> None:
    readiness = Readiness()
    async with duty_of(readiness, 10) as duty:
        assert "no gateway" in readiness.reason
        assert not await told(duty, readiness, [BASE, TUNED])
        assert readiness.reason == "loading base, tuned"
        assert not await told(duty, readiness, [BASE, TUNED], "base")
        assert await told(duty, readiness, [BASE, TUNED], "base", "tuned")
        assert await told(duty, readiness, [BASE, TUNED, pb.WantedModel(name="more")], "base", "tuned")


async def test_without_anything_to_load_it_is_ready_at_once() -> None:
    readiness = Readiness()
    async with duty_of(readiness, 10) as duty:
        assert await told(duty, readiness, [])


async def test_a_model_that_it_cannot_have_does_not_keep_it_away_from_the_others() -> None:
    readiness = Readiness()
    async with duty_of(readiness, 10) as duty:
        duty.refused("tuned")
        assert not await told(duty, readiness, [BASE, TUNED])
        duty.refused("base")
        assert not await told(duty, readiness, [BASE, TUNED]), "it has no model at all"
        assert await told(duty, readiness, [BASE, TUNED], "base")


async def test_calls_that_outlast_the_grace_period_are_handed_back_before_it_ends() -> None:
    readiness = Readiness()
    async with duty_of(readiness, 4) as duty:
        async with duty.lent():
            pass  # one that ends in time
        draining = asyncio.get_running_loop().call_later(0.05, asyncio.ensure_future, readiness.drain())
        began = asyncio.get_running_loop().time()
        with pytest.raises(Aborted, match="hands the samples back"):
            async with duty.lent():
                await asyncio.sleep(60)
        assert asyncio.get_running_loop().time() - began < 4, "two seconds are left"
        draining.cancel()


async def test_a_time_out_inside_a_call_is_its_own() -> None:
    async with duty_of(Readiness(), 10) as duty:
        with pytest.raises(TimeoutError):
            async with duty.lent(), asyncio.timeout(0.01):
                await asyncio.sleep(60)
