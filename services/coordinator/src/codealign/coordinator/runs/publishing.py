"""Publishing a run's rows as a version whose bytes depend on the rows alone."""

from __future__ import annotations

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.clients import Clients
from codealign.coordinator.method import examples, prompts
from codealign.coordinator.runs.config import GENERATING, model_of
from codealign.coordinator.ground.store import PATIENT

TITLE = "Self-aligned coding instructions"


async def publish(clients: Clients, record: pb.Record, rows: int) -> str:
    """Publish the run's examples; the version's name, or an empty string where there is no row."""
    if not rows:
        return ""
    run = record.run
    facts = {
        "pipeline": run.pipeline,
        "few_shots_sha256": examples.content_sha256(run.few_shot_set),
        "templates_sha256": prompts.templates_sha256(),
        "benchmark_texts_sha256": run.selection.forbidden_texts_sha256 or "none: not decontaminated",
        "responses_per_instruction": str(run.responses.attempts),
        "selection": "random pass" if run.selection.random_pass else "lowest attempt that passes",
    }
    for stage in GENERATING:
        facts[f"{stage}_model_revision"] = model_of(run, stage).revision
    request = dataset.PublishVersionRequest(
        collection=record.id, title=TITLE, promise=await _promise(clients, run), facts=facts
    )
    response = await clients.call(clients.dataset.PublishVersion, request, timeout=3600, retry=PATIENT)
    return response.version.name


async def _promise(clients: Clients, run: pb.Run) -> str:
    """Name the promise: reproducible where each engine is batch-invariant and generates for itself."""
    for name in {model_of(run, stage).model for stage in GENERATING}:
        request = inf.GetModelRequest(name=name)
        model = (await clients.call(clients.inference.GetModel, request, retry=PATIENT)).model
        if not model.batch_invariant or model.engine == "replay":
            return "replayable"
    return "reproducible"
