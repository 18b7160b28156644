"""What a run would do and cost, without running it: an upper bound, and a forecast at the rates of earlier runs."""

from __future__ import annotations

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import Unimplemented
from codealign.coordinator import pipelines
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Item, Settings, Writing
from codealign.coordinator.runs import earlier
from codealign.coordinator.runs.checks import has_target
from codealign.coordinator.runs.config import model_of, run_records, stage_configs
from codealign.coordinator.runs.prompting import prompt_of, shots
from codealign.coordinator.runs.strategies import STRATEGIES

UPPER_BOUNDS = (
    "no earlier run with these models, this pipeline and this strategy has rows: nothing is known about rates, and the "
    "numbers are upper bounds without the target"
)
NO_TOKENIZER = "no token counts: this engine has no tokenizer"


async def build(services: Services, run: pb.Run, notes: list[str], available: int | None = None) -> api.PlanRunResponse:
    """Plan the items and tokens of each stage, as if every item passed and became one record.

    Prompt tokens are those of one typical prompt of the stage times the number of items prompted for: draws of one item
    share its prompt.

    Args:
        services: The store and the engine.
        run: The run with every default filled in.
        notes: Notes for users found so far.
        available: Records that the run begins with, from `available_of`. None: they are counted.

    Raises:
        CodeAlignError: The store or the engine cannot answer.
    """
    pipeline = pipelines.get(run.pipeline)
    if available is None:
        available = await available_of(services, run)
    plan = api.PlanRunResponse(config=run, notes=notes, run_id=run_records(run)[1].id)
    if run.seeds.limit > available:
        plan.notes.append(f"the collection has only {available} {pipeline.seeds.plural}, not {run.seeds.limit}")
    plan.stages.append(api.PlannedStage(stage=pipeline.seeds.name, items=available))
    items = most_items(pipeline, run, available)
    first = await _first_seed(services, pipeline, run)
    for stage in pipeline.writing:
        own = Settings(run).of(stage.name)
        parents = items[stage.parent]
        text = _typical_prompt(pipeline, run, stage, first)
        tokens = await _count(services, model_of(run, stage.name).model, text)
        if not tokens and NO_TOKENIZER not in plan.notes:
            plan.notes.append(NO_TOKENIZER)
        plan.stages.append(
            api.PlannedStage(
                stage=stage.name,
                items=items[stage.name],
                prompt_tokens=parents * tokens,
                generated_tokens=items[stage.name] * own.max_tokens,
            )
        )
    if (execution := pipeline.execution) is not None:
        executed = items[execution.parent] * run.execution.runs
        plan.stages.append(api.PlannedStage(stage=execution.name, items=executed))
    rows = items[pipeline.groups.name]
    plan.stages.append(api.PlannedStage(stage=pipeline.selection.name, items=rows))
    seed_config = stage_configs(run)[pipeline.seeds.name].id
    rates = await earlier.rates(services.dataset, run, seed_config)
    found = earlier.forecast(run, rates, available, most_rows(run, available))
    if found is not None:
        plan.forecast.CopyFrom(found)
    elif has_target(run):
        plan.notes.append(UPPER_BOUNDS)
    return plan


def most_rows(run: pb.Run, available: int) -> int:
    """Return an upper bound of the rows that a run can keep.

    Args:
        run: The run with every default filled in.
        available: Records that it begins with, from `available_of`.
    """
    pipeline = pipelines.get(run.pipeline)
    items = most_items(pipeline, run, available)
    several = STRATEGIES[run.selection.strategy].several
    most = items[pipeline.candidates.name if several else pipeline.groups.name]
    return min(most, run.target.rows) if run.target.HasField("rows") else most


def too_many_rows(rows: int, run: pb.Run, available: int) -> str:
    """Return what is wrong with training on so many rows of a run, or ""; see `most_rows`."""
    most = most_rows(run, available)
    given = "seeds and target" if run.target.HasField("rows") else "seeds"
    return f"is {rows:,}; the run's {given} give at most {most:,} rows" if rows > most else ""


def most_items(pipeline: Pipeline, run: pb.Run, available: int) -> dict[str, int]:
    """Return the items of the seeds and of each writing stage if every item passes and becomes one record."""
    items = {pipeline.seeds.name: min(run.seeds.limit or available, available)}
    for stage in pipeline.writing:
        items[stage.name] = items[stage.parent] * Settings(run).of(stage.name).attempts
    return items


def _typical_prompt(pipeline: Pipeline, run: pb.Run, stage: Writing, first: pb.Record | None) -> str:
    """Return the first seed's prompt or, for later stages without items yet, one with an extra example."""
    settings = Settings(run)
    if first is not None and stage.parent == pipeline.seeds.name:
        return prompt_of(pipeline, settings, stage, Item(first, first.id, {pipeline.seeds.name: first})).prompt.text
    found = shots(pipeline, settings, stage, "0")
    return stage.prefix([*found, found[-1]])


async def available_of(services: Services, run: pb.Run) -> int:
    """Return the number of records in a run's collection that it may begin with.

    Raises:
        CodeAlignError: The store cannot answer.
    """
    return await requests.count(services.dataset, run.seeds.collection, pipelines.get(run.pipeline).seeds.makes)


async def _first_seed(services: Services, pipeline: Pipeline, run: pb.Run) -> pb.Record | None:
    request = ds.ScanRequest(kind=pipeline.seeds.makes, collection=run.seeds.collection, page_size=1)
    found = (await services.dataset.scan(request)).records
    return found[0] if found else None


async def _count(services: Services, model: str, text: str) -> int:
    """Return the number of tokens of a text, or 0 if the engine has no tokenizer."""
    try:
        response = await services.inference.count_tokens(inf.CountTokensRequest(model=model, texts=[text]))
    except Unimplemented:
        return 0
    return response.counts[0]
