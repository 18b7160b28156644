"""Tokens per kept row, by stage and switch: the paper's way of drawing against the presets', with and without a target.

    make bench-draws     # or .venv/bin/python -m tests.bench.draws [--seeds 1500] [--rows 300]
    make bench-draws ARGS="--real --seeds 400 --without-target 100 --rows 60"

The dataset service and the coordinator are real processes, the engine is the simulated one, whose instructions differ
in their pass rates as recorded, and the sandbox believes its programs. With --real, the embedded model writes and the
real sandbox judges. Each line adds one switch to the line above it.
Tokens are counted as an engine with a prefix cache computes them: each few-shot prefix once, the rest of each prompt
once, and every generated token. A prefix that is drawn for one prompt alone is thus computed for every prompt.
"""

from __future__ import annotations

import argparse
import ast
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.cli.presets import load
from codealign.nano import examples, functions
from tests import gateways
from tests.bench.scene import Scene, follow, pipeline_of, run_of, seed, store_seeds

AIM = 0.25
"""Tokens per row with all switches, as a share of those of the paper's way, where seeds are not scarce."""
ATTEMPTS = 10
_LIMIT_SECONDS = 3600.0
_STAGES = {
    pb.KIND_CONCEPT_SET: "concepts",
    pb.KIND_INSTRUCTION: "instructions",
    pb.KIND_RESPONSE: "responses",
}
_PAGE = 1000


@dataclass(frozen=True)
class Measured:
    """What one run cost."""

    switch: str
    rows: int
    seeds: int
    tokens: Counter[str]
    """Computed tokens by stage."""

    def per_row(self, stage: str = "") -> float:
        """Computed tokens of a stage, or of all, per row."""
        return (self.tokens[stage] if stage else self.tokens.total()) / max(1, self.rows)


def whole(run: pb.Run, pipeline: api.Pipeline) -> pb.Run:
    """Return the run with settings of every writing stage and `ATTEMPTS` attempts."""
    own = {stage.stage: stage for stage in run.stages}
    names = [stage.name for stage in pipeline.stages if stage.role == api.STAGE_ROLE_WRITING]
    stages = [own.get(name) or pb.StageSettings(stage=name) for name in names]
    stages[-1].attempts = ATTEMPTS
    found = pb.Run()
    found.CopyFrom(run)
    found.ClearField("stages")
    found.stages.extend(stages)
    return found


def unpooled(run: pb.Run) -> None:
    """Draw new examples for every prompt."""
    for stage in run.stages:
        stage.ClearField("prefix_groups")
        stage.unpooled = True


def random_pass(run: pb.Run) -> None:
    """Draw all attempts and choose a random pass."""
    run.stages[-1].round_size = ATTEMPTS
    run.selection.strategy = "random-pass"


def first_pass(run: pb.Run) -> None:
    """Stop drawing at the first pass, in the preset's rounds."""
    run.selection.strategy = "first-pass"


def one_by_one(run: pb.Run) -> None:
    """Draw one attempt after the other."""
    run.stages[-1].round_size = 1


def targeted(rows: int, window: int) -> Callable[[pb.Run], None]:
    """Return the switch that sets a target of so many rows."""

    def switch(run: pb.Run) -> None:
        run.target.rows, run.target.window, run.seeds.limit = rows, window, 0

    return switch


def nano_seed(number: int) -> pb.Seed:
    """Return a documented function of nano's world."""
    dice = random.Random(f"draws {number}")
    composition = functions.draw(dice)
    names = functions.draw_names(dice, composition)
    code = examples.write_function(dice, composition, names) + "\n"
    (function,) = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef)
    return pb.Seed(
        code=code,
        name=names.function,
        docstring=ast.get_docstring(function) or "",
        path="nano.py",
        line=1 + 10 * number,
    )


def scene_of(folder: Path, model: str, *, real: bool) -> Scene:
    """Return the services.

    Args:
        folder: Their data and logs.
        model: Profile of the simulated engine.
        real: Whether the embedded model writes and the real sandbox judges.
    """
    if not real:
        return Scene(folder, inference={"model": model, "max_waiting": "100000"}, sandbox={"believes": "true"})
    preset = load("nano")
    settings = {name: str(value) for name, value in preset.inference.items()}
    inference = {**settings, "model": preset.source("model"), "max_waiting": "100000"}
    return Scene(folder, inference=inference, sandbox_command=())


def records(dataset: DatasetServiceStub, collection: str, kind: pb.Kind.ValueType) -> Iterator[pb.Record]:
    """Yield all records of a kind in a collection."""
    request = ds.ScanRequest(kind=kind, collection=collection, page_size=_PAGE)
    while True:
        response = dataset.Scan(request, timeout=300)
        yield from response.records
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def computed(dataset: DatasetServiceStub, run: str) -> Counter[str]:
    """Count the tokens that an engine with a prefix cache computes for a run, by stage."""
    stages: dict[str, str] = {}
    for kind in (*_STAGES, pb.KIND_REJECTION):
        for record in records(dataset, run, kind):
            wanted = record.rejection.rejected_kind if kind == pb.KIND_REJECTION else kind
            if len(record.parents) > 1 and wanted in _STAGES:
                stages[record.parents[1]] = _STAGES[wanted]
    prefixes = {record.id: len(record.prompt_prefix.text) for record in records(dataset, run, pb.KIND_PROMPT_PREFIX)}
    found, seen = Counter[str](), set[object]()
    for record in records(dataset, run, pb.KIND_COMPLETION):
        stage, prefix_id, made = stages[record.id], record.parents[0], record.provenance
        chars = prefixes[prefix_id] + len(record.completion.prompt_suffix)
        prefix = made.prompt_tokens * prefixes[prefix_id] // chars
        parts = [(prefix_id, prefix), ((prefix_id, record.completion.prompt_suffix), made.prompt_tokens - prefix)]
        for key, tokens in parts:
            if key not in seen:
                seen.add(key)
                found[stage] += tokens
        found[stage] += made.generated_tokens
    return found


def measure(coordinator: CoordinatorServiceStub, dataset: DatasetServiceStub, switch: str, run: pb.Run) -> Measured:
    """Carry out a run and count its tokens.

    Raises:
        RuntimeError: The run did not succeed; the message says why.
    """
    created = coordinator.CreateRun(api.CreateRunRequest(config=run), timeout=300).run
    ended = follow(coordinator, created.id, 1.0, _LIMIT_SECONDS)
    if ended.state != pb.RUN_STATE_SUCCEEDED:
        raise RuntimeError(f"{switch}: the run is {pb.RunState.Name(ended.state)}: {ended.message}")
    report = coordinator.GetReport(api.GetReportRequest(run=created.id), timeout=600)
    seeds = next(stage.kept for stage in report.stages if stage.stage == "concepts")
    return Measured(switch, report.rows, seeds, computed(dataset, created.id))


def table(found: list[Measured]) -> str:
    """Return the tokens per row of each switch, by stage, and as a share of the first line."""
    lines = [
        "| switch | rows | seeds | concepts | instructions | responses | tokens/row | share |",
        "|---|" + "---:|" * 7,
    ]
    for each in found:
        stages = " | ".join(f"{each.per_row(stage):,.0f}" for stage in _STAGES.values())
        share = each.per_row() / found[0].per_row()
        lines.append(
            f"| {each.switch} | {each.rows:,} | {each.seeds:,} | {stages} | {each.per_row():,.0f} | {share:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1500, help="seeds in the collection")
    parser.add_argument("--rows", type=int, default=300, help="rows of the runs with a target")
    parser.add_argument(
        "--without-target", type=int, default=0, help="seeds of the runs without a target; 0: all in the collection"
    )
    parser.add_argument("--window", type=int, default=0, help="window of the target; 0: the default")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--model", default="nano", help="profile of the simulated engine")
    parser.add_argument("--real", action="store_true", help="the embedded model and the real sandbox")
    given = parser.parse_args()
    gateways.end_by_signals()
    best: list[Callable[[pb.Run], None]] = [first_pass, one_by_one]
    switches: list[tuple[str, list[Callable[[pb.Run], None]]]] = [
        ("as the paper's scripts", [random_pass, unpooled]),
        ("+ pooled examples", [random_pass]),
        ("+ first pass", [first_pass]),
        ("+ one attempt at a time", best),
        (f"+ target of {given.rows} rows", [*best, targeted(given.rows, given.window)]),
    ]
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="codealign-draws-") as folder:
        scene = scene_of(Path(folder), given.model, real=given.real)
        with scene.up(), scene.stubs() as (coordinator, dataset):
            store_seeds(dataset, given.seeds, nano_seed if given.real else seed)
            pipeline = pipeline_of(coordinator)
            for name, changes in switches:
                run = whole(run_of(given.preset, pipeline), pipeline)
                run.seeds.limit = given.without_target
                for change in changes:
                    change(run)
                found.append(measure(coordinator, dataset, name, run))
                print(table(found[-1:]).rpartition("\n")[2], flush=True)
    engine = "nano and gVisor" if given.real else f"simulated {given.model}"
    print(f"\npreset {given.preset}, {engine}, {given.seeds} seeds, {ATTEMPTS} attempts\n")
    print(table(found))
    if found[-1].per_row() > AIM * found[0].per_row():
        print(f"\nabove the aim: {AIM} of the first line")


if __name__ == "__main__":
    main()
