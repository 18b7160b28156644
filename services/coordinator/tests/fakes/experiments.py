"""Experiments over toy pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codealign.api.dataset.v1 import records_pb2 as pb
from fakes import toys
from fakes.following import Coordinator, World

BASE = pb.ExperimentArm(name="base", model="base")


def run(strategy: str = "random-pass", **fields: Any) -> pb.Run:
    given = {"pipeline": "one-line", "seeds": pb.SeedSelection(collection=toys.SEEDS), **fields}
    given["selection"] = pb.SelectionSettings(strategy=strategy)
    return pb.Run(model=pb.ModelChoice(model="base"), **given)


def arm(name: str, strategy: str, **fields: Any) -> pb.ExperimentArm:
    return pb.ExperimentArm(name=name, run=run(strategy), model="base", **fields)


def experiment(*arms: pb.ExperimentArm, **fields: Any) -> pb.Experiment:
    given = {
        "name": "ablation",
        "models": [pb.ExperimentModel(model=pb.ModelChoice(model="base", revision="rev-base"), source="/models/base")],
        "arms": arms or [BASE, arm("passes", "random-pass"), arm("failures", "failures-only")],
        "seeds": [0, 1],
        "evaluations": [pb.EvaluationSettings(benchmarks=["humaneval"])],
        "claims": [pb.ExperimentClaim(statement="Passes help.", better="passes", than="base", source="Table 9")],
        **fields,
    }
    return pb.Experiment(**given)


def world(folder: Path, seeds: int = 4, *, at_once: bool = True) -> World:
    made = World(folder, at_once=at_once)
    made.dataset.put(*toys.seeds(seeds), collection=toys.SEEDS)
    return made


async def create(coordinator: Coordinator, given: pb.Experiment) -> pb.Record:
    record, _ = await coordinator.experiments.create(await coordinator.experiments.prepare(given))
    return record
