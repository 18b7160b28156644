"""The training from its first row to its result, in each worker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from codealign.trainer.sft.card import Card
from codealign.trainer.sft.checkpoints import SENT, CheckpointFolder
from codealign.trainer.sft.encoding import EncodedRows, encode
from codealign.trainer.sft.job import Job, TrainingError
from codealign.trainer.sft.loading import add_lora, load_model, load_tokenizer
from codealign.trainer.sft.order import Order, plan
from codealign.trainer.sft.progress import Outcome, Point, ProgressWriter
from codealign.trainer.sft.result import write_result
from codealign.trainer.sft.rows import drawn, read_rows
from codealign.trainer.sft.template import SYSTEM_SENTENCE
from codealign.trainer.sft.training import FineTuner


def train(job: Job, *, first_worker: bool = True) -> Outcome:
    """Train from the last checkpoint or else from the base model, and write the result.

    Args:
        job: The training's job.
        first_worker: Whether this process writes progress and result. If pods have their own disks, the first worker of
            each pod writes checkpoints.

    Raises:
        TrainingError: The training failed; the message says why.
    """
    transformers.utils.logging.disable_progress_bar()
    if job.threads:
        torch.set_num_threads(job.threads)
    if job.batch_size % (job.workers * job.micro_batch_size):
        raise TrainingError(
            f"spec.batch_size is {job.batch_size}; must be a multiple of {job.workers} workers times "
            f"{job.micro_batch_size} rows"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", job.workers))  # the other workers are in other pods
    if job.device == "cuda" and torch.cuda.device_count() < here:
        raise TrainingError(
            f"{here} workers need {here} GPUs, but PyTorch sees {torch.cuda.device_count()}: lower spec.workers, "
            "or install a PyTorch build for this machine's GPUs"
        )
    writer = ProgressWriter(job.progress_file) if first_worker else None
    sent = os.environ.get(SENT)
    first_here = first_worker or bool(sent and os.environ.get("LOCAL_RANK") == "0")
    checkpoints = CheckpointFolder(job.checkpoints, job.training_id, Path(sent) if sent else None)
    if first_here:
        checkpoints.prepare()
    checkpoints.newest()  # refuses another training's checkpoint before anything slow
    tokenizer, notes = load_tokenizer(job.model)
    encoded = encode(tokenizer, drawn(read_rows(job.dataset), job.rows, job.seed), job.max_length)
    checkpoints.rows = encoded.digest()
    resumed = checkpoints.newest()
    order = plan(
        len(encoded.rows), batch_size=job.batch_size, epochs=job.epochs, max_steps=job.max_steps, seed=job.seed
    )
    transformers.set_seed(job.library_seed)  # before adapters are initialized
    model, more = load_model(job, tokenizer)
    if not resumed and (other := checkpoints.newest_of_other_rows()):
        more.append(
            f"the checkpoint of step {other} is not used, since an earlier release of CodeAlign made it with the rows "
            "in another order; training starts from the beginning"
        )
    with _memory_explained():
        if job.lora:
            model = add_lora(model, job.lora, low_precision=job.sharded)
        tuner = FineTuner(job, model, tokenizer, encoded, order, checkpoints, writer, commits=first_here)
        if writer:
            _announce(writer, tuner, encoded, order, resumed, [*notes, *more])
        tuner.train(resume_from_checkpoint=str(checkpoints.path(resumed)) if resumed else None)
        card = _card(tuner, tokenizer, encoded)
        write_result(job, tuner, tokenizer, card)
    return Outcome("succeeded", final_loss=card.losses[-1].loss, steps=tuner.state.global_step)


def _announce(
    writer: ProgressWriter, tuner: FineTuner, encoded: EncodedRows, order: Order, resumed: int, notes: list[str]
) -> None:
    writer.write(
        "started",
        resumed_step=resumed,
        total_steps=order.total_steps,
        rows=len(encoded.rows),
        truncated_rows=encoded.truncated,
        dropped_rows=encoded.dropped,
        trained_tokens=tuner.trained_tokens_at(resumed),
    )
    if encoded.dropped:
        notes.append(f"{encoded.dropped} rows are dropped: their prompt alone exceeds the maximum length")
    for text in notes:
        writer.write("note", text=text)


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU is out of memory ({str(error).splitlines()[0]}): set spec.gradient_checkpointing, lower "
            "spec.max_length, use more workers with spec.sharding fsdp, or set spec.lora"
        ) from error


def _card(tuner: FineTuner, tokenizer: Any, encoded: EncodedRows) -> Card:
    history = [entry for entry in tuner.state.log_history if "loss" in entry]
    return Card(
        rows=len(encoded.rows),
        truncated_rows=encoded.truncated,
        dropped_rows=encoded.dropped,
        trained_tokens=tuner.trained_tokens,
        own_template=SYSTEM_SENTENCE in str(tokenizer.chat_template),
        losses=[Point(int(entry["step"]), entry["loss"], entry["learning_rate"]) for entry in history],
    )
