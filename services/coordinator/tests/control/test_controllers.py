"""A subject reaches the last requested state, whatever faults hit coordinators, callers and the store."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import FailedPrecondition, Internal, Unavailable
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import PauseWanted
from codealign.coordinator.ground.control import LOOK_SECONDS
from codealign.coordinator.ground.faults import RunFailed
from fakes import FakeDataset
from fakes.coordinators import LEASE_SECONDS, Coordinator, Subjects
from fakes.virtual_time import LoopClock, in_virtual_time

RUNNING, PAUSED, CANCELLED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_CANCELLED
SUCCEEDED, FAILED = pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED


def now() -> float:
    return asyncio.get_running_loop().time()


def world() -> tuple[FakeDataset, Subjects]:
    dataset = FakeDataset(LoopClock())
    return dataset, Subjects(dataset)


@in_virtual_time
async def test_what_is_wanted_is_carried_out_and_recorded() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a")
    run = await subjects.create()
    standing = await subjects.until(run, SUCCEEDED)
    assert standing.event is not None
    assert standing.event.run_event.version == "v-1"
    assert subjects.events(run) == ["RUNNING", "SUCCEEDED"]
    await coordinator.drain()
    assert dataset.holder(f"run/{run}") == ""


@in_virtual_time
async def test_a_store_outage_longer_than_the_lease_does_not_fail_a_run() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a")
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    await asyncio.sleep(2)
    dataset.control.go_away()
    await asyncio.sleep(8 * LEASE_SECONDS)
    waiting = coordinator.controllers.assigned[run].waiting.text
    assert waiting.startswith("the dataset service, since ")
    assert waiting.endswith("connection refused)")
    dataset.control.come_back()
    await subjects.until(run, SUCCEEDED)
    assert subjects.events(run) == ["RUNNING", "SUCCEEDED"]
    assert coordinator.work.begun == 1, "the work went on in place"


@in_virtual_time
async def test_a_store_node_that_vanishes_without_a_word_does_not_fail_a_run() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a")
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    await asyncio.sleep(2)
    coordinator.link.silent = True
    await asyncio.sleep(120)
    assert coordinator.controllers.assigned[run].waiting.text.endswith("ping timeout")
    coordinator.link.silent = False
    await subjects.until(run, SUCCEEDED)
    assert subjects.events(run) == ["RUNNING", "SUCCEEDED"]


@in_virtual_time
async def test_an_outage_of_one_coordinators_link_hands_the_run_to_another_one() -> None:
    dataset, subjects = world()
    first = Coordinator(dataset, "a", steps=60)
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    second = Coordinator(dataset, "b", steps=60)
    first.link.away = True
    await asyncio.sleep(2 * LEASE_SECONDS)
    assert dataset.holder(f"run/{run}") == "b"
    first.link.away = False
    await asyncio.sleep(LEASE_SECONDS)
    assert run not in first.controllers.assigned, "who lost the lease ends its work"
    assert dataset.holder(f"run/{run}") == "b"
    await subjects.until(run, SUCCEEDED)
    assert subjects.events(run) == ["RUNNING", "SUCCEEDED"]
    assert second.work.begun == 1


@in_virtual_time
async def test_what_a_coordinator_appends_after_it_lost_the_lease_is_refused() -> None:
    dataset, subjects = world()
    first = Coordinator(dataset, "a", steps=60)
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    await asyncio.sleep(3)
    first.link.away = True
    Coordinator(dataset, "b", steps=60)
    await asyncio.sleep(2 * LEASE_SECONDS)
    first.link.away = False
    await subjects.until(run, SUCCEEDED)
    logs = dataset.of_kind(pb.KIND_WORK_LOG)
    holders = {(int(log.key.split("/")[1]), log.key.split("/")[0]) for log in logs}
    assert len({token for token, _ in holders}) == len(holders), "one holder for each token"
    assert [holder for _, holder in sorted(holders)] == ["a", "b"]


@in_virtual_time
async def test_the_lease_is_released_on_pause_so_that_a_resume_elsewhere_begins_at_once() -> None:
    dataset, subjects = world()
    first = Coordinator(dataset, "a", steps=60)
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    await subjects.want(run, PAUSED, first)
    await subjects.until(run, PAUSED)
    await asyncio.sleep(0.5)
    assert dataset.holder(f"run/{run}") == ""
    first.kill()
    second = Coordinator(dataset, "b")
    await subjects.want(run, RUNNING, second)
    asked = now()
    await subjects.until(run, RUNNING)
    assert now() - asked < 1
    assert subjects.events(run) == ["RUNNING", "PAUSED", "RUNNING"]


@in_virtual_time
async def test_a_replacement_takes_over_in_under_five_seconds_after_a_drain() -> None:
    dataset, subjects = world()
    first, second = Coordinator(dataset, "a", steps=60), Coordinator(dataset, "b")
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    holder, other = (first, second) if dataset.holder(f"run/{run}") == "a" else (second, first)
    await holder.drain()
    await asyncio.sleep(4.9)
    assert dataset.holder(f"run/{run}") == other.work.holder
    await subjects.until(run, SUCCEEDED)
    assert other.work.begun == 1
    assert "PAUSED" not in subjects.events(run)


@in_virtual_time
async def test_work_that_does_not_stop_is_cancelled_when_the_drain_has_lasted_its_time() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a", drain_seconds=5.0, seconds=1e6)
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    began = now()
    await coordinator.drain()
    assert 5 <= now() - began < 6
    assert dataset.holder(f"run/{run}") == ""


@in_virtual_time
async def test_after_a_kill_the_lease_bounds_the_takeover() -> None:
    dataset, subjects = world()
    first = Coordinator(dataset, "a", steps=60)
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    first.kill()
    killed = now()
    Coordinator(dataset, "b", steps=1)
    await subjects.until(run, SUCCEEDED)
    assert now() - killed < LEASE_SECONDS + LOOK_SECONDS + 3


@in_virtual_time
async def test_two_who_ask_for_the_same_at_once_make_one_request() -> None:
    dataset, subjects = world()
    first, second = Coordinator(dataset, "a"), Coordinator(dataset, "b")
    one, other = await asyncio.gather(subjects.create(), subjects.create())
    assert one == other
    await subjects.until(one, RUNNING)
    await asyncio.gather(*(subjects.want(one, PAUSED, by) for by in (first, second, first)))
    await subjects.until(one, PAUSED)
    await asyncio.gather(*(subjects.want(one, RUNNING, by) for by in (first, second, first)))
    await subjects.until(one, SUCCEEDED)
    assert [request.run_request.wanted for request in subjects.requests(one)] == [RUNNING, PAUSED, RUNNING]
    assert subjects.events(one) == ["RUNNING", "PAUSED", "RUNNING", "SUCCEEDED"]


@in_virtual_time
async def test_a_caller_that_goes_away_changes_nothing() -> None:
    """Whenever the handler is cancelled, the run is either paused or continues as if there was no request."""
    for moment in range(12):
        dataset, subjects = world()
        coordinator = Coordinator(dataset, "a", steps=20)
        run = await subjects.create()
        await subjects.until(run, RUNNING)
        handler = asyncio.create_task(subjects.want(run, PAUSED, coordinator))
        for _ in range(moment):
            await asyncio.sleep(0)
        handler.cancel()
        await asyncio.wait([handler])
        wanted = (await subjects.standing(run)).wanted
        await subjects.until(run, PAUSED if wanted == PAUSED else SUCCEEDED)
        await asyncio.sleep(1)
        assert run not in coordinator.controllers.assigned
        await coordinator.drain()


@in_virtual_time
async def test_an_error_in_discovery_is_tried_again() -> None:
    dataset, subjects = world()
    run = await subjects.create()
    coordinator = Coordinator(dataset, "a")
    coordinator.link.errors = {
        "count": [Internal("a fault"), Unavailable("away"), RuntimeError("odd")],
        "scan": [Internal("a fault"), RuntimeError("odd")],
        "acquire_lease": [Internal("a fault"), Unavailable("away")],
    }
    await subjects.until(run, SUCCEEDED, within=30)


@in_virtual_time
async def test_what_is_settled_is_not_read_again() -> None:
    dataset, subjects = world()
    first = Coordinator(dataset, "a", steps=0)
    runs = [await subjects.create(seed) for seed in range(20)]
    for run in runs:
        await subjects.until(run, SUCCEEDED)
    await first.drain()
    before = dataset.control.calls["acquire_lease"]
    Coordinator(dataset, "b")
    await asyncio.sleep(10)
    assert dataset.control.calls["acquire_lease"] == before, "a new coordinator reads them in bulk"
    scans = dataset.control.calls["scan"]
    await asyncio.sleep(600)
    assert dataset.control.calls["scan"] == scans, "as long as nobody asks for anything, only counts are read"


@in_virtual_time
async def test_a_request_made_through_another_coordinator_reaches_the_one_at_work() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a", steps=600)
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    await subjects.want(run, CANCELLED)
    asked = now()
    await subjects.until(run, CANCELLED)
    assert now() - asked < LOOK_SECONDS + 1
    assert coordinator.work.begun == 1


@in_virtual_time
async def test_a_failure_is_an_event_and_a_resume_tries_again() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a")
    coordinator.work.raises = [RunFailed("no model is loaded: load one, then resume"), KeyError("odd")]
    run = await subjects.create()
    assert (await subjects.until(run, FAILED)).message == "no model is loaded: load one, then resume"
    await asyncio.sleep(60)
    assert coordinator.work.begun == 1
    with pytest.raises(FailedPrecondition, match="has ended"):
        await subjects.want(run, PAUSED, coordinator)
    await subjects.want(run, RUNNING, coordinator)
    await subjects.until(run, RUNNING)
    assert (await subjects.until(run, FAILED)).message == "unexpected KeyError: 'odd'; see the log"
    await subjects.want(run, RUNNING, coordinator)
    await subjects.until(run, SUCCEEDED)
    assert subjects.events(run) == ["RUNNING", "FAILED", "RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]
    assert dataset.holder(f"run/{run}") == ""


@in_virtual_time
async def test_an_error_that_quotes_what_no_message_can_hold_is_a_failure_too() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a")
    coordinator.work.raises = [ValueError("\ud800" + "x" * 10_000)]
    message = (await subjects.until(await subjects.create(), FAILED)).message
    assert message.startswith("unexpected ValueError: \\ud800xxx")
    assert len(message) < 3000


@in_virtual_time
async def test_work_that_wants_to_be_paused_is_paused_with_its_reason() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a")
    coordinator.work.raises = [PauseWanted("40 of the last 50 items ended in internal errors")]
    run = await subjects.create()
    standing = await subjects.until(run, PAUSED)
    assert standing.message == "40 of the last 50 items ended in internal errors"
    assert standing.wanted == PAUSED
    await subjects.want(run, RUNNING, coordinator)
    await subjects.until(run, SUCCEEDED)


@in_virtual_time
async def test_a_service_that_is_away_does_not_end_the_work() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a")
    coordinator.work.raises = [Unavailable("inference: away"), ExceptionGroup("", [Unavailable("training: away")])]
    run = await subjects.create()
    await subjects.until(run, SUCCEEDED)
    assert subjects.events(run) == ["RUNNING", "SUCCEEDED"]


@in_virtual_time
async def test_a_pause_that_is_taken_back_while_work_stops_lets_it_go_on() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a", seconds=5.0)
    run = await subjects.create()
    await subjects.until(run, RUNNING)
    await subjects.want(run, PAUSED, coordinator)
    await asyncio.sleep(1)
    await subjects.want(run, RUNNING, coordinator)
    await subjects.until(run, SUCCEEDED)
    assert "PAUSED" not in subjects.events(run)


@in_virtual_time
async def test_a_success_holds_whatever_is_asked_for_at_the_last_moment() -> None:
    dataset, subjects = world()
    coordinator = Coordinator(dataset, "a", steps=1)
    run = await subjects.create()
    await subjects.until(run, SUCCEEDED)
    wanted = pb.RunRequest(wanted=PAUSED, reason="too late")
    late = await requests.append(dataset, run, wanted, 1)
    coordinator.controllers.poke(run, late.attempt)
    await asyncio.sleep(60)
    assert subjects.events(run) == ["RUNNING", "SUCCEEDED"]
    assert not coordinator.controllers.assigned


@pytest.mark.parametrize("seed", range(8))
def test_a_random_walk_ends_where_the_last_request_says(seed: int) -> None:
    """Requests, kills, drains, lapses and outages in any order."""
    print(f"seed {seed}")
    choice = random.Random(seed)

    @in_virtual_time
    async def walk() -> None:
        dataset, subjects = world()
        living = [Coordinator(dataset, "0", steps=40)]
        run = await subjects.create()
        for number in range(1, 40):
            what = choice.choice(["want", "want", "kill", "drain", "link", "outage", "wait", "fail", "lost answer"])
            coordinator = choice.choice(living)
            if what == "want":
                by = None if coordinator.link.away else coordinator
                with contextlib.suppress(FailedPrecondition, Unavailable):
                    await subjects.want(run, choice.choice([RUNNING, PAUSED, CANCELLED]), by)
            elif what in ("kill", "drain"):
                living.remove(coordinator)
                if what == "kill":
                    coordinator.kill()
                else:
                    await coordinator.drain()
                living += [Coordinator(dataset, str(number), steps=40)]
                if choice.random() < 0.3:
                    living += [Coordinator(dataset, f"{number}b", steps=40)]
            elif what == "link":
                coordinator.link.away = not coordinator.link.away
            elif what == "outage":
                dataset.control.go_away()
                await asyncio.sleep(choice.uniform(1, 3 * LEASE_SECONDS))
                dataset.control.come_back()
            elif what == "fail":
                coordinator.work.raises.append(choice.choice([Unavailable("away"), PauseWanted("odd items")]))
            elif what == "lost answer":
                coordinator.link.lost = choice.randint(1, 3)
            await asyncio.sleep(choice.choice([0, 0.5, 3, 10]))
        for coordinator in living:
            coordinator.link.away = False
            coordinator.link.lost = 0
            coordinator.work.raises.clear()
        await asyncio.sleep(1)
        standing = await subjects.standing(run)
        if standing.state != SUCCEEDED:
            await subjects.want(run, RUNNING, living[0])
            await subjects.until(run, SUCCEEDED)
        await asyncio.sleep(1)
        assert dataset.holder(f"run/{run}") == ""
        states = subjects.events(run)
        assert states[-1] == "SUCCEEDED"
        assert states.count("SUCCEEDED") == 1
        assert "FAILED" not in states
        tokens = [(int(log.key.split("/")[1]), log.key.split("/")[0]) for log in dataset.of_kind(pb.KIND_WORK_LOG)]
        assert len({token for token, _ in tokens}) == len(set(tokens)), "a token has one holder"

    walk()
