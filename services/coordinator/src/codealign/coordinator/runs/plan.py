"""What a run would do and cost at most, without doing it."""

from __future__ import annotations

import grpc

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.clients import Clients
from codealign.coordinator.method import examples, prompts
from codealign.coordinator.runs.config import model_of, run_records
from codealign.coordinator.ground.store import RunStore


async def build(clients: Clients, run: pb.Run, notes: list[str]) -> api.PlanRunResponse:
    """The plan: items and tokens of each stage, as if every item got through.

    Prompt tokens are those of one typical prompt of the stage, times its items.
    """
    store = RunStore(clients, run.seeds.collection)
    available = sum(item.count for item in await store.count() if item.kind == pb.KIND_SEED)
    seeds = min(run.seeds.limit or available, available)
    if run.seeds.limit > available:
        notes.append(f"the collection holds {available} seeds, not {run.seeds.limit}")
    plan = api.PlanRunResponse(config=run, notes=notes, run_id=run_records(run)[1].id)
    plan.stages.append(api.PlannedStage(stage="seeds", items=available))
    first = await _first_seed(store, run)
    typical = {
        "concepts": prompts.concepts_prefix(_shots(run, "concepts")) + prompts.concepts_suffix(1, first.seed.code),
        "instructions": prompts.instruction_prefix(_shots(run, "instructions")),
        "responses": prompts.response_prefix(_shots(run, "responses"))
        + prompts.response_suffix(1, examples.load(run.few_shot_set)[0].instruction),
    }
    for stage, text in typical.items():
        settings: pb.GenerationSettings = getattr(run, stage)
        tokens = await _count(clients, model_of(run, stage).model, text)
        if not tokens and "no token counts: this engine has no tokenizer" not in plan.notes:
            plan.notes.append("no token counts: this engine has no tokenizer")
        plan.stages.append(
            api.PlannedStage(
                stage=stage,
                items=seeds * settings.attempts,
                prompt_tokens=seeds * tokens,
                generated_tokens=seeds * settings.attempts * settings.max_tokens,
            )
        )
    plan.stages.append(api.PlannedStage(stage="execution", items=seeds * run.responses.attempts * run.execution.runs))
    return plan


def _shots(run: pb.Run, stage: str) -> list[examples.FewShot]:
    settings: pb.GenerationSettings = getattr(run, stage)
    return list(examples.ordering(run.few_shot_set, run.seed, stage, "0", settings.few_shots))


async def _first_seed(store: RunStore, run: pb.Run) -> pb.Record:
    request = dataset.ScanRequest(kind=pb.KIND_SEED, collection=run.seeds.collection)
    return await anext(store.scan(request))


async def _count(clients: Clients, model: str, text: str) -> int:
    request = inf.CountTokensRequest(model=model, texts=[text])
    try:
        return (await clients.call(clients.inference.CountTokens, request)).counts[0]
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return 0
        raise
