"""The coordinator's metrics count the work of this process, once, under declared reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.evaluation.controller import EvaluationWorkload
from codealign.coordinator.ground.control import Controllers
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.main import observe
from codealign.coordinator.metrics import OTHER, StageMeter
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.controller import RunWorkload
from codealign.coordinator.runs.progress import measured_progress
from fakes import Clock, FakeDataset, toys
from fakes.coordinators import Coordinator, Subjects
from fakes.toys import SEEDS, Bench
from fakes.virtual_time import LoopClock, in_virtual_time

SHAPE = "one-line"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"codealign_coordinator_{name}", labels) or 0.0


def total(name: str, **labels: str) -> float:
    """Return the sum of a metric's series with these labels."""
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == f"codealign_coordinator_{name}" and labels.items() <= sample.labels.items()
    )


@pytest.fixture
def increase() -> Callable[..., float]:
    """Return how much a metric has grown since it was first asked for."""
    before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def grown(name: str, **labels: str) -> float:
        key = name, tuple(sorted(labels.items()))
        now = total(name, **labels)
        return now - before.setdefault(key, now)

    return grown


def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(toys, "empty_progress", measured_progress)
    made = Bench(toys.run_record(SHAPE, "first-pass"))
    made.fakes.dataset.put(*toys.seeds(8), collection=SEEDS)
    return made


async def test_a_run_counts_its_items_tokens_and_rows(
    monkeypatch: pytest.MonkeyPatch, increase: Callable[..., float]
) -> None:
    made = bench(monkeypatch)
    pipeline = toys.shapes()[SHAPE]
    stages = [stage.name for stage in pipeline.stages]
    names = ("items_total", "dropped_items_total")
    for name in names:
        for stage in stages:
            increase(name, stage=stage)
    for name in ("rows_total", "tokens_total"):
        increase(name)
    outcome = await made.work()
    for stage in stages:
        tally = made.progress[stage]
        assert increase("items_total", stage=stage) == tally.kept + tally.dropped
        assert increase("dropped_items_total", stage=stage) == tally.dropped
    assert increase("rows_total") == outcome.rows > 0
    used = [record.provenance for record in made.fakes.dataset.of_kind(pb.KIND_COMPLETION, made.run.id)]
    assert increase("tokens_total") >= sum(each.prompt_tokens + each.generated_tokens for each in used) > 0


async def test_what_a_resumed_run_finds_is_not_counted_again(
    monkeypatch: pytest.MonkeyPatch, increase: Callable[..., float]
) -> None:
    made = bench(monkeypatch)
    await made.work()
    writing = [stage.name for stage in toys.shapes()[SHAPE].writing]
    for stage in writing:
        increase("items_total", stage=stage), increase("dropped_items_total", stage=stage)
    increase("rows_total"), increase("tokens_total")
    await made.work()
    assert made.progress[writing[0]].kept > 0
    for stage in writing:
        assert increase("items_total", stage=stage) == 0
        assert increase("dropped_items_total", stage=stage) == 0
    assert increase("rows_total") == increase("tokens_total") == 0


def test_an_undeclared_reason_is_counted_as_other() -> None:
    meter = StageMeter("stage-of-a-test", {"empty"})
    for reason in (None, "empty", "a reason that a model made up"):
        meter.finished(reason)
    assert value("items_total", stage="stage-of-a-test") == 3
    assert value("dropped_items_total", stage="stage-of-a-test", reason="empty") == 1
    assert value("dropped_items_total", stage="stage-of-a-test", reason=OTHER) == 1
    assert total("dropped_items_total", stage="stage-of-a-test") == 2


def test_busy_time_grows_while_items_are_in_flight() -> None:
    clock = Clock()
    tally = StageTally(clock=clock, meter=StageMeter("busy-stage-of-a-test", ()))
    tally.begin(2)
    clock.advance(2)
    tally.end()
    assert value("busy_seconds_total", stage="busy-stage-of-a-test") == 2
    clock.advance(3)
    tally.end()
    clock.advance(10)
    assert value("busy_seconds_total", stage="busy-stage-of-a-test") == 5


@in_virtual_time
async def test_workloads_are_shown_by_state_while_they_are_held_and_counted_when_they_end(
    increase: Callable[..., float],
) -> None:
    dataset = FakeDataset(LoopClock())
    coordinator, subjects = Coordinator(dataset, "a"), Subjects(dataset)
    increase("workload_ends_total", workload="run", state="succeeded")
    run = await subjects.create()
    await subjects.until(run, pb.RUN_STATE_RUNNING)
    assert coordinator.controllers.states() == {("run", "working"): 1}
    dataset.control.go_away()
    await asyncio.sleep(60)
    assert coordinator.controllers.states() == {("run", "waiting"): 1}
    dataset.control.come_back()
    await subjects.until(run, pb.RUN_STATE_SUCCEEDED)
    await coordinator.drain()
    assert not coordinator.controllers.states()
    assert increase("workload_ends_total", workload="run", state="succeeded") == 1


async def test_gauges_follow_the_controllers() -> None:
    made = Bench(toys.run_record(SHAPE, "first-pass"))
    runs = RunWorkload(made.settings, made.fakes.services, BenchmarkTexts())
    observe(
        Controllers(made.fakes.dataset, [], "a", 15, 1), runs, EvaluationWorkload(made.settings, made.fakes.services)
    )
    stage = "instructions"
    progress = runs.live["run"] = measured_progress(made.run.run)
    progress[stage].begin(3)
    assert value("items_in_flight", stage=stage) == 3
    del runs.live["run"]
    assert value("items_in_flight", stage=stage) == 0
