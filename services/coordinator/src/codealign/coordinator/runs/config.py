"""A run's configuration: defaults, identity, and the stage configurations derived from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.protobuf import json_format

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import FailedPrecondition, InvalidArgument
from codealign.common.text import unknown
from codealign.coordinator import pipelines
from codealign.coordinator.agreement import version as agreement
from codealign.coordinator.pipelines.defaults import stage_settings
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Settings, Writing
from codealign.coordinator.reading import sections
from codealign.coordinator.rules import near, rows, version
from codealign.coordinator.runs.checks import check, has_target
from codealign.coordinator.runs.strategies import STRATEGIES, FirstPass

SEED_RULES = "seed-rules"
"""Name of the configuration of the root's rules."""
ROW_RULES = "row-rules"
"""Key of the configuration for the rules on instructions and rows."""
COMPARISON = "comparison"
"""Name of the configuration of comparisons of attempts."""
DEFAULT_WINDOW = 512
"""Actions of a run with a target that may be in progress or not taken into account: above twice an engine's slots."""
SEED_RULES = "seed-rules"
"""Name of the configuration for the rules on the records that a pipeline begins with."""
DEFAULT_PROFILE = "default"
"""Runner profile if the run names none."""


def with_defaults(given: pb.Run) -> pb.Run:
    """Return a copy with every default filled in, except for values that services provide when the run is created.

    Those are the models' revisions, the benchmark texts' hash, and the runner's image, Python version and limits. A
    setting that equals its default gives the same run as one that is left out. The function is idempotent.

    Raises:
        InvalidArgument: Names every invalid field by its path in the request.
    """
    check(given)
    run = pb.Run()
    run.CopyFrom(given)
    pipeline = pipelines.get(given.pipeline)
    run.pipeline = pipeline.name
    run.few_shot_set = run.few_shot_set or pipeline.few_shots.default
    own = {settings.stage: settings for settings in given.stages}
    run.ClearField("stages")
    run.stages.extend(stage_settings(stage, own.get(stage.name)) for stage in pipeline.writing)
    for settings in run.stages:
        if names_the_same(settings.model, run.model):
            settings.ClearField("model")
    if pipeline.execution is not None:
        run.execution.profile = run.execution.profile or DEFAULT_PROFILE
        run.execution.runs = run.execution.runs or 1
    selection = run.selection
    selection.CopyFrom(pipeline.selection.defaults)
    selection.MergeFrom(given.selection)
    selection.instruction_words = selection.instruction_words or 200
    selection.near_duplicate_threshold = selection.near_duplicate_threshold or 0.7
    selection.near_duplicates = selection.near_duplicates or near.DEFAULT_STRATEGY
    if not selection.HasField("tests_in_instruction"):
        selection.tests_in_instruction = 0.5
    selection.strategy = selection.strategy or FirstPass.name
    selection.rules_version = pipeline.rules_version
    if not has_target(run):
        run.ClearField("target")
    else:
        run.target.window = run.target.window or DEFAULT_WINDOW
        if run.target.HasField("device_hours"):
            run.target.devices = run.target.devices or 1
    return run


def pipeline_of(run: pb.Run) -> Pipeline:
    """Return the pipeline of a stored run, after checking that this release has everything that the run names.

    Raises:
        FailedPrecondition: The run was created by another release; names what is missing.
    """
    try:
        pipeline = pipelines.get(run.pipeline, "pipeline")
    except InvalidArgument as error:
        raise FailedPrecondition(f"the run was created by another release: {error.message}") from error
    there = {settings.stage for settings in run.stages}
    missing = [f"no settings for stage {stage.name!r}" for stage in pipeline.writing if stage.name not in there]
    for what, name, known in (
        ("few-shot set", run.few_shot_set, pipeline.few_shots.names() or [""]),
        ("strategy", run.selection.strategy, STRATEGIES),
        ("strategy", run.selection.near_duplicates, near.STRATEGIES),
    ):
        if name not in known:
            missing.append(unknown(what, name, known))
    if missing:
        raise FailedPrecondition(
            f"the run was created by another release: {'; '.join(missing)}. Run `codealign rejudge` to make a new one"
        )
    return pipeline


def names_the_same(own: pb.ModelChoice, runs: pb.ModelChoice) -> bool:
    """Return whether a stage's choice of a model adds nothing to the run's choice."""
    return own.model in ("", runs.model) and own.revision in ("", runs.revision)


def model_of(run: pb.Run, stage: str) -> pb.ModelChoice:
    """Return the model that generates a stage."""
    own = Settings(run).of(stage).model
    return own if own.model else run.model


def run_records(run: pb.Run) -> tuple[pb.Record, pb.Record]:
    """Return the run's configuration record and the run's record.

    The run's id depends on everything that determines its data, but not on its name or on the run whose completions it
    rejudges.
    """
    bare = pb.Run()
    bare.CopyFrom(run)
    bare.ClearField("name")
    bare.ClearField("rejudges")
    settings = json_format.MessageToDict(bare, preserving_proto_field_name=True)
    config = _record(pb.KIND_RUN, "run", settings)
    return config, records.complete(pb.Record(kind=pb.KIND_RUN, stage_config_id=config.id, run=run))


@dataclass(frozen=True)
class StageConfigs(Mapping[str, pb.Record]):
    """The StageConfig records of a run by stage name, with the rules for rows under ROW_RULES."""

    records: Mapping[str, pb.Record]
    samplings: Mapping[str, pb.Record]
    comparison: pb.Record | None = None
    """Of comparisons of attempts. None: the strategy does not compare them."""

    def __getitem__(self, name: str) -> pb.Record:
        """Return the configuration of a stage, or of the rules for rows."""
        return self.records[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the pipeline's order."""
        return iter(self.records)

    def __len__(self) -> int:
        """Return the number of configurations, without samplings."""
        return len(self.records)

    def sampling(self, stage: str) -> pb.Record:
        """Return the sampling configuration of a writing stage's completions."""
        return self.samplings[stage]

    def all(self) -> list[pb.Record]:
        """Return all distinct records."""
        comparison = [self.comparison] if self.comparison is not None else []
        found = [*self.records.values(), *self.samplings.values(), *comparison]
        return list({record.id: record for record in found}.values())


def draws_id(run: pb.Run, stage: str) -> str:
    """Return a hash of what a stage's draws depend on besides their parents, without stop strings and parsing."""
    pipeline = pipelines.get(run.pipeline)
    return _draws_id(pipeline, run, _writing(pipeline, stage))


def _writing(pipeline: Pipeline, name: str) -> Writing:
    return next(stage for stage in pipeline.writing if stage.name == name)


def _draws_id(pipeline: Pipeline, run: pb.Run, stage: Writing) -> str:
    return _record(stage.makes, stage.name, _draw_settings(pipeline, run, stage)).id


def _draw_settings(pipeline: Pipeline, run: pb.Run, stage: Writing) -> dict[str, object]:
    settings = Settings(run)
    own = settings.of(stage.name)
    return {
        "model_revision": model_of(run, stage.name).revision,
        "templates": pipeline.templates_sha256,
        "few_shots": pipeline.few_shots.content_sha256(run.few_shot_set),
        "few_shot_count": own.few_shots,
        "prefix_groups": 0 if own.unpooled else own.prefix_groups,
        "temperature": own.temperature,
        "top_p": own.top_p,
        "max_tokens": own.max_tokens,
        "seed": run.seed,
        **stage.draw_settings(settings),
    }


def stage_configs(run: pb.Run) -> StageConfigs:
    """Return the configurations that determine each stage's output besides its parents.

    Their versions are those of this coordinator's stages, whatever the run's settings say, because these parse the
    output.
    """
    pipeline = pipelines.get(run.pipeline)
    found = {pipeline.seeds.name: _seed_rules(pipeline, run)}
    samplings = {}
    for stage in pipeline.writing:
        own = Settings(run).of(stage.name)
        stop = list(stage.section.stop(own.few_shots))
        reading = {"stop": stop, "reading": sections.READING, "version": stage.VERSION}
        found[stage.name] = _record(stage.makes, stage.name, reading | _draw_settings(pipeline, run, stage))
        sampling = {
            "model_revision": model_of(run, stage.name).revision,
            "temperature": own.temperature,
            "top_p": own.top_p,
            "max_tokens": own.max_tokens,
            "stop": stop,
        }
        samplings[stage.name] = _record(pb.KIND_COMPLETION, "sampling", sampling)
    if pipeline.execution is not None:
        found[pipeline.execution.name] = _execution(pipeline, run)
    found[ROW_RULES] = _row_rules(pipeline, run)
    found[pipeline.selection.name] = _selection(pipeline, run)
    compares = pipeline.execution is not None and STRATEGIES[run.selection.strategy].compares
    return StageConfigs(found, samplings, _comparison(pipeline, run) if compares else None)


def _seed_rules(pipeline: Pipeline, run: pb.Run) -> pb.Record:
    settings = {
        "rules": list(pipeline.seeds.reasons),
        "rules_version": version.VERSION,
        "version": pipeline.seeds.VERSION,
        **pipeline.seeds.rule_settings(Settings(run)),
        "threshold": pipeline.seeds.threshold,
        "near_duplicates": run.selection.near_duplicates,
        "benchmarks": run.selection.forbidden_texts_sha256,
    }
    return _record(pipeline.seeds.makes, SEED_RULES, settings)


def _execution(pipeline: Pipeline, run: pb.Run) -> pb.Record:
    assert pipeline.execution is not None
    return _record(pipeline.execution.makes, pipeline.execution.name, _execution_settings(pipeline, run))


def _comparison(pipeline: Pipeline, run: pb.Run) -> pb.Record:
    settings = _execution_settings(pipeline, run) | {"agreement": agreement.VERSION}
    return _record(pb.KIND_JUDGEMENT, COMPARISON, settings)


def _execution_settings(pipeline: Pipeline, run: pb.Run) -> dict[str, object]:
    assert pipeline.execution is not None
    return {
        "profile": run.execution.profile,
        "runs": run.execution.runs,
        "limits": {field.name: value for field, value in run.execution.limits.ListFields()},
        "image_digest": run.execution.image_digest,
        "python_version": run.execution.python_version,
        "version": pipeline.execution.VERSION,
    }


def _row_rules(pipeline: Pipeline, run: pb.Run) -> pb.Record:
    settings = {
        "rules": list(rows.RULES),
        "rules_version": version.VERSION,
        "version": pipeline.selection.VERSION,
        "instruction_words": run.selection.instruction_words,
        "benchmarks": run.selection.forbidden_texts_sha256,
    }
    return _record(pb.KIND_DECISION, ROW_RULES, settings)


def _selection(pipeline: Pipeline, run: pb.Run) -> pb.Record:
    settings = {
        "rules": list(pipeline.selection.duplicate_rules),
        "rules_version": version.VERSION,
        "version": pipeline.selection.VERSION,
        "threshold": run.selection.near_duplicate_threshold,
        "near_duplicates": run.selection.near_duplicates,
        "tests_in_instruction": run.selection.tests_in_instruction,
        "seed": run.seed,
    }
    return _record(pipeline.selection.makes, pipeline.selection.name, settings)


def _record(kind: pb.Kind.ValueType, name: str, settings: Mapping[str, object]) -> pb.Record:
    text = json.dumps(settings, sort_keys=True)
    body = pb.StageConfig(kind=kind, name=name, settings_json=text)
    return records.complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=body))
