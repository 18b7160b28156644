"""Trainings: the list, and one with its loss curve."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.message import Message
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.cli.enums import value_name
from codealign.cli.records_view import field_texts
from codealign.cli.report import charts
from codealign.cli.report.charts import spark
from codealign.cli.report.wording import loss
from codealign.cli.terminal import duration, size
from codealign.console.reading import Reader, first
from codealign.console.rendering import gather, page

MOST = 200
_BUSY = (tr.TRAINING_STATE_PENDING, tr.TRAINING_STATE_RUNNING)
_TONES = {tr.TRAINING_STATE_SUCCEEDED: "good", tr.TRAINING_STATE_FAILED: "bad", tr.TRAINING_STATE_RUNNING: "busy"}


def _state(training: tr.Training) -> str:
    return value_name(tr.TrainingState.DESCRIPTOR, training.state).lower()


def _tone(training: tr.Training) -> str:
    return _TONES.get(training.state, "calm")


async def _checkpoints(reader: Reader) -> list[pb.Record]:
    return await first(reader.scan(ds.ScanRequest(kind=pb.KIND_CHECKPOINT)), MOST)


async def trainings(request: Request) -> Response:
    """Show the trainings, newest first, and the trained models that the records know."""
    gathered = gather(request)
    listed, checkpoints = await asyncio.gather(
        gathered.part(lambda reader: reader.call(reader.clients.training.ListTrainings, tr.ListTrainingsRequest())),
        gathered.part(_checkpoints),
    )
    found = list(listed.trainings[:MOST]) if listed else []
    known = {training.checkpoint_id for training in found}
    return page(
        request,
        "trainings",
        gathered,
        section="trainings",
        title="Trainings",
        live=any(training.state in _BUSY for training in found),
        trainings=[
            (one, _state(one), _tone(one), spark([point.loss for point in one.losses], 16), loss(one.loss))
            for one in found
        ],
        checkpoints=_newest([record for record in checkpoints or () if record.id not in known]),
    )


def _newest(checkpoints: Sequence[pb.Record]) -> list[pb.Record]:
    return sorted(checkpoints, key=lambda record: -record.provenance.created_at.seconds)


async def training(request: Request) -> Response:
    """Show a training."""
    gathered, wanted = gather(request), request.path_params["training"]
    found = await gathered.part(
        lambda reader: reader.call(reader.clients.training.GetTraining, tr.GetTrainingRequest(id=wanted)), named=True
    )
    one = found.training if found else tr.Training(id=wanted)
    return page(
        request,
        "training",
        gathered,
        section="trainings",
        title=f"Training {one.spec.name or wanted[:12]}",
        status=200 if found else 503,
        live=one.state in _BUSY,
        training=one,
        state=_state(one) if found else "",
        tone=_tone(one),
        chart=charts.loss_chart(one.losses, name="loss") if one.losses else Markup(""),
        facts=_facts(one),
        settings=_settings(one.spec),
    )


def _facts(one: tr.Training) -> list[tuple[str, str]]:
    left = duration(one.seconds_left) if one.HasField("seconds_left") and one.state in _BUSY else ""
    memory = one.estimate
    facts = {
        "step": f"{one.step:,} of {one.total_steps:,}" if one.total_steps else "",
        "time left": left,
        "loss": loss(one.loss) if one.losses else "",
        "tokens per second": f"{one.tokens_per_second:,.1f}" if one.tokens_per_second else "",
        "rows": f"{one.rows:,}" if one.rows else "",
        "truncated rows": f"{one.truncated_rows:,}" if one.rows else "",
        "tokens in the loss": f"{one.trained_tokens:,}" if one.trained_tokens else "",
        "last checkpoint": f"step {one.checkpoint_step:,}" if one.checkpoint_step else "",
        "memory needed": f"{size(memory.memory_bytes)} of {size(memory.memory_available_bytes)}"
        if memory.memory_bytes
        else "",
        "model": one.spec.model,
        "trained on": one.spec.dataset,
        "result": one.artifact_url,
    }
    return [(name, text) for name, text in facts.items() if text]


def _settings(spec: Message) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), text) for name, text in field_texts(spec).items()]
