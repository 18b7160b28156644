"""A window fills the service's capacity, shrinks when refused, and grows again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import ResourceExhausted, Unavailable
from codealign.coordinator.ground import windows
from codealign.coordinator.ground.calls import Completions
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.windows import Load, Window
from fakes import Clock, FakeInference, FakeSandbox
from fakes.toys import said


def says(slots: int, waiting: int = 0, working: int = 0) -> Callable[[], Awaitable[Load]]:
    async def ask() -> Load:
        return Load(slots, waiting, working)

    return ask


@pytest.mark.parametrize("slots", [1, 16, 512])
async def test_default_settings_fill_the_slots_of_any_engine(slots: int) -> None:
    inference = FakeInference(slots=slots)
    everything_is_there = asyncio.Event()

    async def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if inference.running >= slots:
            everything_is_there.set()
        await everything_is_there.wait()
        return said("text")

    inference.writes = write
    completions = Completions(inference, StageTally(), windows.of_inference(inference), lambda: None, 10.0)

    async def ask(number: int) -> None:
        async for _ in completions.of(inf.GenerateRequest(samples=[inf.Sample(attempt=number, seed=number)])):
            pass

    await asyncio.gather(*(ask(number) for number in range(3 * slots)))
    assert slots <= inference.most_running <= slots + max(1, slots // 4)
    assert inference.control.calls["get_load"] >= 1


@pytest.mark.parametrize(("most", "expected"), [(0, 40), (7, 7)])
async def test_settings_are_an_upper_bound(most: int, expected: int) -> None:
    window = Window(says(32), most=most)
    async with window:
        assert window.limit == expected


async def test_a_service_that_says_nothing_gets_a_modest_window() -> None:
    async def ask() -> Load:
        raise Unavailable("connection refused")

    window = Window(ask)
    async with window:
        assert window.limit == windows.START


async def test_a_refusal_halves_the_window_once_for_a_round_and_success_widens_it_again() -> None:
    window = Window(says(64))
    await window.acquire(80)
    for _ in range(80):
        window.refused()
    assert window.limit == 40
    for _ in range(40):
        window.release(succeeded=False)
    window.refused()
    assert window.limit == 20, "another round was refused"
    window.release(40, succeeded=False)
    widths = []
    for _ in range(10):
        count = window.limit
        for _ in range(count):
            await window.acquire()
        for _ in range(count):
            window.release()
        widths.append(window.limit)
    assert widths == sorted(widths)
    assert widths[1] - widths[0] <= 6, "step by step"
    assert widths[-1] <= 80
    assert window.in_use == 0
    assert widths[-1] > 60


async def test_a_long_queue_of_others_makes_the_window_give_back_its_share() -> None:
    clock, load = Clock(), [Load(32, 0, 0)]

    async def ask() -> Load:
        return load[0]

    window = Window(ask, clock=clock)
    await window.acquire(40)
    load[0] = Load(32, 48, 32)
    clock.advance(windows.POLL_SECONDS)
    waiting = asyncio.create_task(window.acquire())
    for _ in range(5):
        await asyncio.sleep(0)
    assert window.limit == 20, "half of all that is there is ours, and the queue is 40 too long"
    window.release(40)
    await waiting
    window.release()


async def test_units_are_given_in_the_order_in_which_they_were_asked_for_and_more_than_the_window_alone() -> None:
    window, order = Window(says(4)), list[str]()
    await window.acquire(3)

    async def take(name: str, units: int) -> None:
        await window.acquire(units)
        order.append(name)
        await asyncio.sleep(0)
        window.release(units)

    async with asyncio.TaskGroup() as tasks:
        for name, units in (("wide", 99), ("narrow", 1), ("other", 1)):
            tasks.create_task(take(name, units))
        await asyncio.sleep(0)
        assert not order
        window.release(3)
    assert order == ["wide", "narrow", "other"]
    assert window.in_use == 0


async def test_who_gives_up_waiting_leaves_no_unit_behind() -> None:
    window = Window(says(1), most=1)
    await window.acquire()
    waiting = [asyncio.create_task(window.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    window.release()
    waiting[1].cancel()  # it was just admitted, and never gets to know
    await asyncio.wait(waiting)
    assert window.in_use == 1
    window.release()
    assert window.in_use == 0


async def test_refusals_of_the_engine_narrow_the_window_and_nothing_is_lost() -> None:
    inference = FakeInference(slots=64)
    refused = 0

    def full(method: str, request: object) -> None:
        nonlocal refused
        if method == "generate" and inference.control.in_flight["generate"] > 8:
            refused += 1
            raise ResourceExhausted("the queue is full", retry_after=0.0)

    async def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        await asyncio.sleep(0)
        return said("text")

    inference.control.before, inference.writes = full, write
    window = windows.of_inference(inference)
    completions, found = Completions(inference, StageTally(), window, lambda: None, 10.0), list[int]()

    async def ask(number: int) -> None:
        async for response in completions.of(inf.GenerateRequest(samples=[inf.Sample(attempt=number, seed=1)])):
            found.append(response.completion.attempt)

    await asyncio.gather(*(ask(number) for number in range(300)))
    assert sorted(found) == list(range(300))
    assert refused
    assert window.in_use == 0


async def test_items_in_flight_follow_the_windows_within_bounds() -> None:
    sandbox = FakeSandbox(slots=100)
    samples, programs = Window(says(512)), windows.of_sandbox(sandbox)
    async with samples, programs:
        assert windows.items_in_flight(0, samples, programs) == 2 * (640 + 125)
        assert windows.items_in_flight(64, samples, programs) == 64
