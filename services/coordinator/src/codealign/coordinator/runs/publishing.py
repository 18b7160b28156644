"""Publishing of a run's rows as a version whose bytes depend only on the rows."""

from __future__ import annotations

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import CodeAlignError, FailedPrecondition, NotFound
from codealign.coordinator.ground.faults import Refused, RunFailed, Tries, absorb
from codealign.coordinator.ground.ports import Inference
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.runs.config import model_of
from codealign.coordinator.runs.context import Context
from codealign.coordinator.runs.strategies import STRATEGIES

TITLE = "Self-aligned coding instructions"
IMPORTED_TITLE = "Imported coding instructions"


async def publish(context: Context, inference: Inference, rows: int) -> str:
    """Publish the run's examples and return the version's name, or "" if there are no rows."""
    if not rows:
        return ""
    promise, unproved = await _promise(context, inference)
    executes = context.pipeline.execution is not None
    request = dataset.PublishVersionRequest(
        collection=context.record.id,
        title=TITLE if context.pipeline.writing else IMPORTED_TITLE,
        promise=promise,
        facts=_facts(context) | ({"unproved": unproved} if unproved else {}),
        verdicts=STRATEGIES[context.run.selection.strategy].verdicts if executes else (),
        not_executed=not executes,
    )
    return (await context.store.publish(request)).version.name


def _facts(context: Context) -> dict[str, str]:
    """Return the facts about the rows' origin for the version's card; the same for the same rows."""
    run, pipeline = context.run, context.pipeline
    strategy = STRATEGIES[run.selection.strategy]
    facts = {
        "pipeline": run.pipeline,
        "benchmark_texts_sha256": run.selection.forbidden_texts_sha256 or "none: not decontaminated",
        "selection": strategy.fact if pipeline.execution else strategy.unexecuted_fact,
    }
    if pipeline.writing:
        candidates = pipeline.candidates.name
        facts |= {
            "few_shots_sha256": pipeline.few_shots.content_sha256(run.few_shot_set),
            "templates_sha256": pipeline.templates_sha256,
            f"{candidates}_per_item": str(context.settings.of(candidates).attempts),
        }
    for stage in pipeline.writing:
        facts[f"{stage.name}_model_revision"] = model_of(run, stage.name).revision
    return facts


async def _promise(context: Context, inference: Inference) -> tuple[str, str]:
    """Return the reproducibility promise, and what an engine lacks for a stronger one.

    Rows are reproducible if each engine is batch-invariant and generates by itself.

    A run that rejudges another run's completions needs no model. If the model is no longer loaded, the engine's
    properties are unknown, but the completions can be replayed. So can imports.
    """
    if not context.pipeline.writing:
        return "replayable", ""
    for name in sorted({model_of(context.run, stage.name).model for stage in context.pipeline.writing}):
        try:
            model = await _model(context, inference, name)
        except RunFailed as error:
            if context.run.rejudges and isinstance(error.__cause__, NotFound | FailedPrecondition):
                return "replayable", ""
            raise
        if not model.batch_invariant or model.engine == "replay":
            return "replayable", model.unproved
    return "reproducible", ""


async def _model(context: Context, inference: Inference, name: str) -> inf.Model:
    tries, tally = Tries(), StageTally()
    while True:
        try:
            model = (await inference.get_model(inf.GetModelRequest(name=name))).model
        except CodeAlignError as error:
            try:
                await absorb(error, tries, tally, "inference", context.store.waiting)
            except Refused as refusal:
                raise RunFailed(f"inference: model {name!r}: {refusal}") from refusal
        else:
            context.store.waiting.end("the inference service")
            return model
