"""A console over examples, for a browser: `python -m services.console.tests.served` prints its address."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.common import logs
from codealign.common.settings import LOOPBACK
from codealign.console import main
from codealign.console.reading import Services
from services.console.tests.compared import Compared
from services.console.tests.conftest import Tree, World, serving
from services.console.tests.examples import RUNNING, SUCCEEDED, add_series, add_target, experiment

LONG = "_a_long_name_without_a_space" * 4
AT_WORK, ENDED = Tree(), Tree(LONG)
"""The trees of a run that draws for a target and is a round of a series; and of one that has ended, with long texts."""
COMPARED, LONG_COMPARED = Compared("compared"), Compared(LONG * 100)
"""The trees of runs whose answers were compared, one with texts of 10,000 characters without a space."""
EXPERIMENT, LONG_EXPERIMENT = "d" * 32, "b" * 32


def fill(world: World) -> None:
    """Put everything that the pages show into the services."""
    reports = world.coordinator.reports
    world.store(AT_WORK, state=RUNNING)
    add_target(reports[AT_WORK.run.id], ended=False)
    add_series(reports[AT_WORK.run.id], ["1" * 32, AT_WORK.run.id], RUNNING, "round 2 of 3: generating data")
    world.store(ENDED)
    add_target(reports[ENDED.run.id], ended=True, text=LONG)
    add_series(reports[ENDED.run.id], ["1" * 32, ENDED.run.id, "2" * 32], text=LONG)
    for tree in (COMPARED, LONG_COMPARED):
        world.store(tree)
        tree.report(reports[tree.run.id])
    world.coordinator.experiments += [experiment(AT_WORK.run.id), experiment(ENDED.run.id, text=LONG)]
    world.coordinator.experiments[-1].experiment.id = LONG_EXPERIMENT
    evaluation = api.EvaluationStatus(id="f" * 32, state=SUCCEEDED)
    world.coordinator.evaluations.append(api.GetEvaluationResponse(evaluation=evaluation))


async def serve(folder: Path) -> None:
    """Serve until stopped."""
    async with serving(folder) as world:
        fill(world)
        bound = main.listen("127.0.0.1", 0)
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        services = Services(lambda: world.addresses)
        await main.serve(services, bound, names=frozenset(LOOPBACK), on_ready=lambda: print(address, flush=True))


if __name__ == "__main__":
    logs.configure("console", "error", "console")  # to stderr: nobody reads the output after the address
    with tempfile.TemporaryDirectory(prefix="codealign-console-") as place:
        asyncio.run(serve(Path(place)))
