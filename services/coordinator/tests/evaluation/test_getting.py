"""An evaluation with its stored results, without starting anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import NotFound
from fakes.following import PROBLEMS, Coordinator, World, settings
from fakes.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_finished_evaluation_is_returned_with_its_results_and_no_other(tmp_path: Path) -> None:
    world = World(tmp_path)
    coordinator = Coordinator(world, "a")
    greedy = (await coordinator.evaluate(settings()))[-1]
    sampled = (await coordinator.evaluate(settings(samples=2, temperature=0.5)))[-1]
    world.inference.control.go_away()
    world.sandbox.control.go_away()
    for one in (greedy, sampled):
        found = await coordinator.evaluations.get(one.job)
        assert found.evaluation.state == pb.RUN_STATE_SUCCEEDED
        assert [result.id for result in found.results] == [one.evaluation.id]
        assert found.results[0].pass_at_k[1] == one.evaluation.pass_at_k[1]
        assert len(found.results[0].scores) == PROBLEMS
    assert (await coordinator.evaluations.get(greedy.job[:8])).evaluation.id == greedy.job


@in_virtual_time
async def test_an_evaluation_that_was_never_requested_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await Coordinator(World(tmp_path), "a").evaluations.get("abcdef")
