"""How a run was made: settings, models, and commands to continue."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import presets
from codealign.cli.report.wording import pretty_json, short
from codealign.cli.run_config import DIFFICULTY
from codealign.cli.terminal import size


@dataclass(frozen=True)
class Setting:
    """A setting of the writing stages."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A command that the user may run next."""

    purpose: str
    line: str


def models(run: pb.Run) -> list[tuple[str, pb.ModelChoice]]:
    """Return the model for everything, or each stage's model."""
    named = [(one.stage, one.model) for one in run.stages if one.model.model]
    if named and len(named) == len(run.stages):
        return named
    return [("model" if not named else "other stages", run.model), *named]


def generation(run: pb.Run) -> list[Setting]:
    """Return the settings of the writing stages, side by side."""
    stages = run.stages

    def row(name: str, values: list[str]) -> Setting:
        return Setting(name, tuple(values))

    rows = [
        row("temperature", [f"{one.temperature:g}" if one.HasField("temperature") else "default" for one in stages]),
        row("top-p", [_or_default(one.top_p) for one in stages]),
        row("maximum new tokens", [_or_default(one.max_tokens) for one in stages]),
        row("few-shot examples", [_or_default(one.few_shots) for one in stages]),
        row(
            "few-shot orderings",
            ["drawn for each prompt" if one.unpooled else _or_default(one.prefix_groups) for one in stages],
        ),
        row("maximum draws per parent", [_or_default(one.attempts) for one in stages]),
        row("draws at once", [_or_default(one.round_size) for one in stages]),
    ]
    drawn = {draw.name: None for one in stages for draw in one.properties}
    rows += [row(f"{name}, drawn from", [_weighted(_values(one, name)) for one in stages]) for name in drawn]
    return [*rows, row("parser version", [_or_default(one.version) for one in stages])] if stages else []


def _values(stage: pb.StageSettings, name: str) -> list[str]:
    return [value for draw in stage.properties if draw.name == name for value in draw.values]


def _or_default(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value else f"{value:g}" if value else "default"


def facts(run: pb.Run) -> list[tuple[str, str]]:
    """Return the other settings of the run's data, without those that are not set."""
    limits = run.execution.limits
    selection = run.selection
    chosen = {
        "pipeline": run.pipeline,
        "seeds": run.seeds.collection
        + (f", the first {run.seeds.limit:,} that pass the filters" if run.seeds.limit else ""),
        "few-shot set": run.few_shot_set,
        "random seed": str(run.seed),
        "rejudges run": run.rejudges,
        "sandbox profile": run.execution.profile,
        "sandbox image": run.execution.image_digest,
        "Python in the sandbox": run.execution.python_version,
        "executions of each program": f"{run.execution.runs:,}" if run.execution.runs else "",
        "limits of each program": ", ".join(
            f"{field.name.replace('_', ' ')} {size(value) if field.name.endswith('bytes') else f'{value:g}'}"
            for field, value in limits.ListFields()
        ),
        "words in an instruction": f"at most {selection.instruction_words:,}" if selection.instruction_words else "",
        "near duplicates": _near_duplicates(selection),
        "tests in an instruction": f"with probability {selection.tests_in_instruction:g}, if they are short"
        if selection.HasField("tests_in_instruction")
        else "",
        "selection strategy": selection.strategy,
        "target": target(run.target),
        "excluded benchmark texts": selection.forbidden_texts_sha256 or "none",
    }
    return [(name, value) for name, value in chosen.items() if value]


def target(given: pb.Target) -> str:
    """Return what ends a run, or "" if nothing does: "74,000 rows or 8 device hours on 4 devices"."""
    parts = []
    if given.rows:
        parts.append(f"{given.rows:,} rows")
    if given.tokens:
        parts.append(f"{given.tokens:,} tokens")
    if given.device_hours:
        on = f" on {given.devices} devices" if given.devices > 1 else ""
        parts.append(f"{given.device_hours:g} device hours{on}")
    window = f"; window of {given.window:,} actions" if parts and given.window else ""
    return " or ".join(parts) + window


def _weighted(names: Iterable[str]) -> str:
    """Return the names that are drawn from, with weights: "function ×2, class"."""
    return ", ".join(f"{name} ×{times}" if times > 1 else name for name, times in Counter(names).items())


def stage_configs(report: api.GetReportResponse) -> list[tuple[str, str, str]]:
    """Return name, id and readable settings of the configurations that the example row's records refer to."""
    found = [record for record in report.trail_references if record.kind == pb.KIND_STAGE_CONFIG]
    order = {stage.stage: place for place, stage in enumerate(report.stages)}
    return [
        (record.stage_config.name, record.id, pretty_json(record.stage_config.settings_json))
        for record in sorted(found, key=lambda one: (order.get(one.stage_config.name, len(order)), one.id))
    ]


def commands(report: api.GetReportResponse, row_id: str) -> list[Command]:
    """Return commands that explain a row, export the rows, run it again, and rebuild the page.

    Args:
        report: The run's.
        row_id: Id of a published row. Empty: none.
    """
    run = report.run
    found = []
    if row_id:
        found.append(Command("explain this row", f"codealign data lineage {shlex.quote(short(row_id))}"))
    if run.version:
        found.append(Command("export the rows", f"codealign data export {shlex.quote(run.version)} -o rows.jsonl"))
    found.append(Command("run it again", run_command(run.config)))
    if run.id:
        found.append(Command("rebuild this page", f"codealign report {shlex.quote(short(run.id))} --html report.html"))
    return found


def run_command(run: pb.Run) -> str:
    """Return the `codealign run` command for this configuration, as far as options can express it."""
    preset = presets.known_by(run)
    known = presets.load(preset)
    last = run.stages[-1] if run.stages else pb.StageSettings()
    temperatures = {round(one.temperature, 6) for one in run.stages if one.HasField("temperature")}
    groups = {one.prefix_groups for one in run.stages if not one.unpooled}
    difficulties = [value for one in run.stages for value in dict.fromkeys(_values(one, DIFFICULTY))]
    strategy = run.selection.strategy
    options: list[tuple[str, str]] = [
        ("--pipeline", run.pipeline),
        ("--n", str(run.seeds.limit) if run.seeds.limit else ""),
        ("--model", run.model.model if run.stages and run.model.model != known.inference.get("model_name") else ""),
        ("--preset", preset if preset != presets.DEFAULT else ""),
        ("--attempts", str(last.attempts or "")),
        ("--round-size", str(last.round_size or "")),
        ("--prefix-groups", str(groups.pop() or "") if len(groups) == 1 else ""),
        ("--max-tokens", str(last.max_tokens or "")),
        ("--temperature", f"{temperatures.pop():g}" if len(temperatures) == 1 else ""),
        ("--rows", str(run.target.rows or "")),
        ("--token-budget", str(run.target.tokens or "")),
        ("--device-hours", f"{run.target.device_hours:g}" if run.target.device_hours else ""),
        ("--devices", str(run.target.devices) if run.target.devices > 1 else ""),
        ("--strategy", strategy if strategy != known.run.get("selection", {}).get("strategy") else ""),
        ("--runs", str(run.execution.runs) if run.execution.runs > 1 else ""),
        *(("--difficulty", difficulty) for difficulty in difficulties),
        ("--seed", str(run.seed) if run.seed else ""),
        ("--name", run.name),
    ]
    parts: list[str] = ["codealign", "run", "--collection", run.seeds.collection]
    for option, value in options:
        if value:
            parts += [option, value]
    return shlex.join(parts)


def _near_duplicates(selection: pb.SelectionSettings) -> str:
    if not selection.near_duplicate_threshold:
        return ""
    if selection.near_duplicates == "band-collision":
        return f"any hash band collision, for a Jaccard similarity of {selection.near_duplicate_threshold:g}"
    return f"Jaccard similarity of {selection.near_duplicate_threshold:g} or more"
