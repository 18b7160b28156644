"""Experiments on a machine for one model take turns, whatever is killed, and say for which one they wait."""

from __future__ import annotations

import asyncio
from pathlib import Path

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground import requests
from fakes.experiments import create, experiment, world
from fakes.following import Coordinator, World
from fakes.virtual_time import in_virtual_time

RUNNING, PAUSED, SUCCEEDED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_SUCCEEDED
JOB = pb.KIND_EVALUATION_JOB
FIRST = experiment(one_model=True)
SECOND = experiment(name="second", seeds=[5], one_model=True)


def with_turn(made: World) -> set[str]:
    """Return the experiments whose turn it is."""
    found: set[str] = set()
    for event in sorted(made.dataset.of_kind(pb.KIND_RUN_EVENT), key=lambda record: record.attempt):
        if event.run_event.has_turn:
            found.add(event.parents[0])
        elif event.run_event.state != RUNNING:
            found.discard(event.parents[0])
    return found


def turns_at_once(made: World) -> list[int]:
    """Return a list to which every append adds the number of experiments whose turn it is after it."""
    seen: list[int] = []

    def after(method: str, request: Message) -> None:
        if method == "append":
            seen.append(len(with_turn(made)))

    made.dataset.control.after = after
    return seen


async def until_turn(made: World, record: pb.Record) -> None:
    async def has_turn() -> bool:
        return record.id in with_turn(made)

    await made.until(has_turn)


async def until_state(made: World, coordinator: Coordinator, record: pb.Record, state: pb.RunState.ValueType) -> None:
    async def reached() -> bool:
        return (await coordinator.experiments.status(record)).state == state

    await made.until(reached)


@in_virtual_time
async def test_the_second_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    made = world(tmp_path)
    seen, coordinator = turns_at_once(made), Coordinator(made, "a")
    first = await create(coordinator, FIRST)
    await until_turn(made, first)
    second = await create(coordinator, SECOND)
    said = set()
    while (await coordinator.experiments.status(first)).state == RUNNING:
        said.add((await coordinator.experiments.status(second)).message)
        await asyncio.sleep(0.5)
    assert f"waits for experiment ablation ({first.id[:12]})" in said
    await until_state(made, coordinator, second, SUCCEEDED)
    assert (await coordinator.experiments.status(first)).state == SUCCEEDED
    assert max(seen) == 1


@in_virtual_time
async def test_of_two_that_begin_at_once_on_two_coordinators_one_waits(tmp_path: Path) -> None:
    made = world(tmp_path)
    seen, one, other = turns_at_once(made), Coordinator(made, "a"), Coordinator(made, "b")
    first, second = await asyncio.gather(create(one, FIRST), create(other, SECOND))
    await until_state(made, one, first, SUCCEEDED)
    await until_state(made, other, second, SUCCEEDED)
    assert max(seen) == 1


@in_virtual_time
async def test_a_turn_outlives_the_coordinator_that_works_on_it(tmp_path: Path) -> None:
    made = world(tmp_path, at_once=False)
    seen, killed = turns_at_once(made), Coordinator(made, "a")
    first = await create(killed, FIRST)

    async def trains() -> bool:
        return bool(made.training.trainings)

    await made.until(trains)
    second = await create(killed, SECOND)
    await asyncio.sleep(5)
    killed.kill()
    await asyncio.sleep(120)
    other = Coordinator(made, "b")
    await asyncio.sleep(120)
    assert with_turn(made) == {first.id}
    assert (await other.experiments.status(second)).message == f"waits for experiment ablation ({first.id[:12]})"
    made.training.at_once = True
    for training in list(made.training.trainings):
        made.training.finish(training)
    await until_state(made, other, first, SUCCEEDED)
    await until_state(made, other, second, SUCCEEDED)
    assert max(seen) == 1


@in_virtual_time
async def test_killed_while_it_takes_its_turn_it_does_not_block_the_others(tmp_path: Path) -> None:
    made = world(tmp_path)
    killed = Coordinator(made, "a")

    def after(method: str, request: Message) -> None:
        if method == "acquire_lease" and made.dataset.holder("experiments/turn"):
            killed.kill()

    made.dataset.control.after = after
    asking = asyncio.create_task(create(killed, FIRST))
    await asyncio.sleep(5)
    asking.cancel()
    assert made.dataset.holder("experiments/turn")
    made.dataset.control.after = None
    other = Coordinator(made, "b")
    second = await create(other, SECOND)
    await until_state(made, other, second, SUCCEEDED)


@in_virtual_time
async def test_a_paused_one_hands_on_its_turn_when_its_work_has_stopped_and_waits_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    made = world(tmp_path)
    made.inference.seconds = 5.0
    seen, coordinator = turns_at_once(made), Coordinator(made, "a", seeds_in_flight=1)
    first = await create(coordinator, FIRST)

    async def evaluates() -> bool:
        return bool(made.dataset.of_kind(pb.KIND_EVALUATION_RESULT))

    await made.until(evaluates)
    second = await create(coordinator, SECOND)
    await coordinator.experiments.want(first, PAUSED, "paused by a person")
    await until_state(made, coordinator, first, PAUSED)
    for job in made.dataset.of_kind(JOB):
        assert (await requests.standing(made.dataset, job.id)).settled(repeatable=True), "nothing of it is in progress"
    await until_turn(made, second)
    await coordinator.experiments.want(first, RUNNING, "resumed")
    await asyncio.sleep(10)
    assert (await coordinator.experiments.status(first)).message == f"waits for experiment second ({second.id[:12]})"
    made.inference.seconds = 0.0
    await until_state(made, coordinator, second, SUCCEEDED)
    await until_state(made, coordinator, first, SUCCEEDED)
    assert max(seen) == 1


@in_virtual_time
async def test_only_an_experiment_for_one_model_is_carried_out_alone(tmp_path: Path) -> None:
    made = world(tmp_path, at_once=False)
    coordinator = Coordinator(made, "a")
    first = await create(coordinator, experiment())
    second = await create(coordinator, experiment(name="second", seeds=[5]))
    await until_turn(made, first)
    await until_turn(made, second)
    third = await create(coordinator, experiment(name="third", seeds=[6], one_model=True))
    await asyncio.sleep(30)
    assert with_turn(made) == {first.id, second.id}
    assert (await coordinator.experiments.status(third)).message.startswith("waits for experiment ")
