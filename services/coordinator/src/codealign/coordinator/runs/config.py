"""A run's configuration: its defaults, its checks, and the configuration of each stage that follows from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf import json_format

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import InvalidArgument
from codealign.coordinator.method import examples, prompts, sections
from codealign.coordinator.rules import duplicates, near, rows, seeds

PIPELINE = "selfcodealign"
MAX_ATTEMPTS = 256
GENERATING = ("concepts", "instructions", "responses")
_WRITES: Mapping[str, tuple[pb.Kind.ValueType, prompts.Section]] = {
    "concepts": (pb.KIND_CONCEPT_SET, prompts.CONCEPTS),
    "instructions": (pb.KIND_INSTRUCTION, prompts.INSTRUCTION),
    "responses": (pb.KIND_RESPONSE, prompts.RESPONSE),
}
"""What each generating stage makes, and the section of its prompt that the model writes."""

# The paper's values, but for round_size and prefix_groups (see docs/decisions): max_tokens, few_shots, attempts.
_DEFAULTS: Mapping[str, tuple[int, int, int]] = {
    "concepts": (128, 8, 1),
    "instructions": (256, 8, 1),
    "responses": (1024, 1, 10),
}
CATEGORIES = ("function", "function", "class", "program")
DIFFICULTIES = ("easy", "medium", "hard")
DEFAULT_TEMPERATURE = 0.7
DEFAULT_PREFIX_GROUPS = 32
DEFAULT_ROUND_SIZE = 2


def with_defaults(given: pb.Run) -> pb.Run:
    """A copy with every default filled in, the models' revisions aside.

    Raises:
        InvalidArgument: Names every field that is wrong.
    """
    run = pb.Run()
    run.CopyFrom(given)
    run.pipeline = run.pipeline or PIPELINE
    run.few_shot_set = run.few_shot_set or PIPELINE
    for stage, (max_tokens, few_shots, attempts) in _DEFAULTS.items():
        settings: pb.GenerationSettings = getattr(run, stage)
        if not settings.HasField("temperature"):
            settings.temperature = DEFAULT_TEMPERATURE
        settings.top_p = settings.top_p or 1.0
        settings.max_tokens = settings.max_tokens or max_tokens
        settings.few_shots = settings.few_shots or few_shots
        if not settings.unpooled:
            settings.prefix_groups = settings.prefix_groups or DEFAULT_PREFIX_GROUPS
        settings.attempts = settings.attempts or attempts
        settings.round_size = min(settings.round_size or DEFAULT_ROUND_SIZE, settings.attempts)
    if not run.categories:
        run.categories.extend(CATEGORIES)
    if not run.difficulties:
        run.difficulties.extend(DIFFICULTIES)
    run.execution.profile = run.execution.profile or "default"
    run.execution.runs = run.execution.runs or 1
    run.selection.instruction_words = run.selection.instruction_words or 200
    run.selection.near_duplicate_threshold = run.selection.near_duplicate_threshold or 0.7
    run.selection.near_duplicates = run.selection.near_duplicates or near.DEFAULT_STRATEGY
    if not run.selection.HasField("tests_in_instruction"):
        run.selection.tests_in_instruction = 0.5
    _check(run)
    return run


def _check(run: pb.Run) -> None:
    wrong: list[tuple[str, str]] = []

    def need(ok: bool, field: str, description: str) -> None:
        if not ok:
            wrong.append((f"config.{field}", description))

    need(run.pipeline == PIPELINE, "pipeline", f"unknown pipeline {run.pipeline!r}; known: {PIPELINE}")
    sets = examples.sets()
    known_set = run.few_shot_set in sets
    need(known_set, "few_shot_set", f"unknown set {run.few_shot_set!r}; known: {', '.join(sets)}")
    need(bool(run.seeds.collection), "seeds.collection", "name a collection of seeds (see `codealign seeds ls`)")
    need(run.seeds.limit >= 0, "seeds.limit", "must not be negative; 0 takes all")
    shots = len(examples.load(run.few_shot_set if known_set else PIPELINE))
    for stage in GENERATING:
        settings: pb.GenerationSettings = getattr(run, stage)
        need(0 <= settings.temperature <= 2, f"{stage}.temperature", "must be from 0 to 2")
        need(0 < settings.top_p <= 1, f"{stage}.top_p", "must be above 0 and at most 1")
        need(settings.max_tokens > 0, f"{stage}.max_tokens", "must be positive")
        need(1 <= settings.few_shots <= shots, f"{stage}.few_shots", f"must be from 1 to {shots}")
        need(settings.unpooled or settings.prefix_groups > 0, f"{stage}.prefix_groups", "must be positive")
        need(1 <= settings.attempts <= MAX_ATTEMPTS, f"{stage}.attempts", f"must be from 1 to {MAX_ATTEMPTS}")
    for stage in GENERATING[:2]:
        need(getattr(run, stage).attempts == 1, f"{stage}.attempts", "must be 1: one draw for each parent")
    for field, given, known in (
        ("categories", run.categories, CATEGORIES),
        ("difficulties", run.difficulties, DIFFICULTIES),
    ):
        strange = sorted(set(given) - set(known))
        need(not strange, field, f"unknown: {', '.join(strange)}; known: {', '.join(dict.fromkeys(known))}")
    need(run.responses.round_size > 0, "responses.round_size", "must be positive")
    selection = run.selection
    need(selection.instruction_words > 0, "selection.instruction_words", "must be positive")
    threshold = selection.near_duplicate_threshold
    need(0 < threshold <= 1, "selection.near_duplicate_threshold", "must be above 0 and at most 1")
    strategy, known_strategies = selection.near_duplicates, ", ".join(near.STRATEGIES)
    need(
        strategy in near.STRATEGIES,
        "selection.near_duplicates",
        f"unknown strategy {strategy!r}; known: {known_strategies}",
    )
    need(0 <= selection.tests_in_instruction <= 1, "selection.tests_in_instruction", "must be from 0 to 1")
    need(1 <= run.execution.runs <= 10, "execution.runs", "must be from 1 to 10")
    if wrong:
        raise InvalidArgument(violations=wrong)


def model_of(run: pb.Run, stage: str) -> pb.ModelChoice:
    """The model that writes a stage."""
    own: pb.ModelChoice = getattr(run, f"{stage}_model")
    return own if own.model else run.model


def run_records(run: pb.Run) -> tuple[pb.Record, pb.Record]:
    """The run's configuration record and its own.

    The run's id rests on the configuration and not on the run's name: the same configuration is the same run.
    """
    nameless = pb.Run()
    nameless.CopyFrom(run)
    nameless.name = ""
    settings = json_format.MessageToDict(nameless, preserving_proto_field_name=True)
    config = _record(pb.KIND_RUN, "run", **settings)
    return config, records.complete(pb.Record(kind=pb.KIND_RUN, stage_config_id=config.id, run=run))


@dataclass(frozen=True)
class StageConfigs:
    """The StageConfig record of each stage of a run."""

    seeds: pb.Record
    concepts: pb.Record
    instructions: pb.Record
    responses: pb.Record
    execution: pb.Record
    rows: pb.Record
    selection: pb.Record

    def all(self) -> list[pb.Record]:
        """Every one of them."""
        return list(vars(self).values())


def draws_id(run: pb.Run, stage: str) -> str:
    """A hash of what a stage's draws depend on besides their parents: not of how they end or are read."""
    return _record(_WRITES[stage][0], stage, **_draw_settings(run, stage)).id


def _draw_settings(run: pb.Run, stage: str) -> dict[str, object]:
    settings: pb.GenerationSettings = getattr(run, stage)
    difficulties = list(run.difficulties)
    # A task's property is drawn with the instruction; the difficulties also order the examples of responses.
    properties: Mapping[str, Mapping[str, object]] = {
        "concepts": {},
        "instructions": {"categories": list(run.categories), "difficulties": difficulties},
        "responses": {"difficulties": difficulties},
    }
    return {
        "model_revision": model_of(run, stage).revision,
        "templates": prompts.templates_sha256(),
        "few_shots": examples.content_sha256(run.few_shot_set),
        "few_shot_count": settings.few_shots,
        "prefix_groups": 0 if settings.unpooled else settings.prefix_groups,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": run.seed,
        **properties[stage],
    }


def stage_configs(run: pb.Run) -> StageConfigs:
    """What each stage's output depends on besides its parents."""
    benchmarks = run.selection.forbidden_texts_sha256

    def generating(stage: str) -> pb.Record:
        made, section = _WRITES[stage]
        stop = section.stop(getattr(run, stage).few_shots)
        return _record(made, stage, stop=stop, reading=sections.READING, **_draw_settings(run, stage))

    limits = {field.name: value for field, value in run.execution.limits.ListFields()}
    return StageConfigs(
        seeds=_record(
            pb.KIND_SEED,
            "seed-rules",
            rules=seeds.RULES,
            max_lines=seeds.MAX_LINES,
            near_duplicates=run.selection.near_duplicates,
            benchmarks=benchmarks,
        ),
        concepts=generating("concepts"),
        instructions=generating("instructions"),
        responses=generating("responses"),
        execution=_record(
            pb.KIND_VERDICT, "execution", profile=run.execution.profile, runs=run.execution.runs, limits=limits
        ),
        rows=_record(
            pb.KIND_DECISION,
            "row-rules",
            rules=rows.RULES,
            instruction_words=run.selection.instruction_words,
            benchmarks=benchmarks,
        ),
        selection=_record(
            pb.KIND_EXAMPLE,
            "selection",
            rules=duplicates.RULES,
            threshold=run.selection.near_duplicate_threshold,
            near_duplicates=run.selection.near_duplicates,
            tests_in_instruction=run.selection.tests_in_instruction,
            seed=run.seed,
        ),
    )


def _record(stage: pb.Kind.ValueType, config_name: str, **settings: object) -> pb.Record:
    text = json.dumps(settings, sort_keys=True)
    body = pb.StageConfig(kind=stage, name=config_name, settings_json=text)
    return records.complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=body))
