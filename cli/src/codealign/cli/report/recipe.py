"""How a run was made: its settings, the models, and the commands that go further."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import presets
from codealign.cli.report.wording import pretty_json, short
from codealign.cli.terminal import size

_GENERATING = ("concepts", "instructions", "responses")
_RECORD_STAGES = {pb.KIND_CONCEPT_SET: 0, pb.KIND_INSTRUCTION: 1, pb.KIND_RESPONSE: 2}


@dataclass(frozen=True)
class Setting:
    """One setting of the three stages that a model writes."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """What a person may do next."""

    purpose: str
    line: str


def models(run: pb.Run) -> list[tuple[str, pb.ModelChoice]]:
    """Who wrote what: one model for everything, or each stage's."""
    own = [(stage, getattr(run, f"{stage}_model")) for stage in _GENERATING]
    named: list[tuple[str, pb.ModelChoice]] = [(stage, choice) for stage, choice in own if choice.model]
    if len(named) == len(_GENERATING):
        return named
    return [("model" if not named else "other stages", run.model), *named]


def generation(run: pb.Run) -> list[Setting]:
    """The settings of concepts, instructions and responses, side by side."""
    stages: list[pb.GenerationSettings] = [run.concepts, run.instructions, run.responses]

    def row(name: str, values: list[str]) -> Setting:
        return Setting(name, tuple(values))

    return [
        row("temperature", [f"{one.temperature:g}" if one.HasField("temperature") else "default" for one in stages]),
        row("top-p", [_or_default(one.top_p) for one in stages]),
        row("new tokens, at most", [_or_default(one.max_tokens) for one in stages]),
        row("examples in the prompt", [_or_default(one.few_shots) for one in stages]),
        row(
            "orderings of examples",
            ["drawn for each prompt" if one.unpooled else _or_default(one.prefix_groups) for one in stages],
        ),
        row("draws for each parent, at most", [_or_default(one.attempts) for one in stages]),
        row("draws at once", [_or_default(one.round_size) for one in stages]),
    ]


def _or_default(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value else f"{value:g}" if value else "default"


def facts(run: pb.Run) -> list[tuple[str, str]]:
    """Every other setting of the run's data; what is not set is left out."""
    limits = run.execution.limits
    selection = run.selection
    chosen = {
        "pipeline": run.pipeline,
        "seeds": run.seeds.collection + (f", the first {run.seeds.limit:,} good ones" if run.seeds.limit else ""),
        "few-shot examples": run.few_shot_set,
        "random seed": str(run.seed),
        "categories of tasks": _weighted(run.categories),
        "difficulties of tasks": ", ".join(run.difficulties),
        "sandbox profile": run.execution.profile,
        "runs of each program": f"{run.execution.runs:,}" if run.execution.runs else "",
        "limits of each program": ", ".join(
            f"{field.name.replace('_', ' ')} {size(value) if field.name.endswith('bytes') else f'{value:g}'}"
            for field, value in limits.ListFields()
        ),
        "words in an instruction": f"{selection.instruction_words:,} at most" if selection.instruction_words else "",
        "near duplicates": _near_duplicates(selection),
        "tests in an instruction": f"with a chance of {selection.tests_in_instruction:g}, where they are short"
        if selection.HasField("tests_in_instruction")
        else "",
        "among several passes": "one at random" if selection.random_pass else "the lowest attempt",
        "benchmark texts kept out": selection.forbidden_texts_sha256 or "none were given",
    }
    return [(name, value) for name, value in chosen.items() if value]


def _weighted(names: Iterable[str]) -> str:
    """Names that are drawn from, one that stands several times with its weight: "function ×2, class"."""
    return ", ".join(f"{name} ×{times}" if times > 1 else name for name, times in Counter(names).items())


def stage_configs(report: api.GetReportResponse) -> list[tuple[str, str, str]]:
    """The configurations that the followed row's records bear: name, id, and the settings as JSON to read."""
    found = [record for record in report.trail_references if record.kind == pb.KIND_STAGE_CONFIG]
    return [
        (record.stage_config.name, record.id, pretty_json(record.stage_config.settings_json))
        for record in sorted(found, key=lambda one: (_RECORD_STAGES.get(one.stage_config.kind, 9), one.id))
    ]


def commands(report: api.GetReportResponse, row_id: str) -> list[Command]:
    """Explain a row, export the rows, run it again.

    Args:
        report: The run's.
        row_id: A published row's. Empty: none.
    """
    run = report.run
    found = []
    if row_id:
        found.append(Command("explain this row", f"codealign data lineage {shlex.quote(short(row_id))}"))
    if run.version:
        found.append(Command("export the rows", f"codealign data export {shlex.quote(run.version)} -o rows.jsonl"))
    found.append(Command("run it again", run_command(run.config)))
    if run.id:
        found.append(
            Command("make this page again", f"codealign report {shlex.quote(short(run.id))} --html report.html")
        )
    return found


def run_command(run: pb.Run) -> str:
    """The `codealign run` that gives this configuration, as far as its options can say it."""
    preset = presets.known_by(run)
    temperatures = {round(getattr(run, stage).temperature, 6) for stage in _GENERATING}
    parts: list[str] = ["codealign", "run", "--collection", run.seeds.collection]
    options: list[tuple[str, str]] = [
        ("--n", str(run.seeds.limit) if run.seeds.limit else ""),
        ("--model", run.model.model if run.model.model != presets.load(preset).inference.get("model_name") else ""),
        ("--preset", preset if preset != presets.DEFAULT else ""),
        ("--attempts", str(run.responses.attempts or "")),
        ("--round-size", str(run.responses.round_size or "")),
        ("--prefix-groups", str(run.responses.prefix_groups or "") if preset != "paper" else ""),
        ("--max-tokens", str(run.responses.max_tokens or "")),
        ("--temperature", f"{temperatures.pop():g}" if len(temperatures) == 1 else ""),
        ("--runs", str(run.execution.runs) if run.execution.runs > 1 else ""),
        *(("--difficulty", difficulty) for difficulty in run.difficulties),
        ("--seed", str(run.seed) if run.seed else ""),
        ("--name", run.name),
    ]
    for option, value in options:
        if value:
            parts += [option, value]
    return shlex.join(parts)


def _near_duplicates(selection: pb.SelectionSettings) -> str:
    if not selection.near_duplicate_threshold:
        return ""
    if selection.near_duplicates == "band-collision":
        return f"any equal band of hashes made for a Jaccard similarity of {selection.near_duplicate_threshold:g}"
    return f"Jaccard similarity of {selection.near_duplicate_threshold:g} or more"
