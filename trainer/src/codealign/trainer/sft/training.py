"""TRL's SFTTrainer with a deterministic row order, atomic checkpoints, and a stop at the first non-finite number."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, broadcast_object_list
from datasets import Dataset
from torch.distributed.tensor import DTensor
from torch.utils.data import Sampler
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer

from codealign.trainer.sft.checkpoints import CheckpointFolder, says_full
from codealign.trainer.sft.encoding import IGNORED, EncodedRows
from codealign.trainer.sft.job import Job, TrainingError
from codealign.trainer.sft.order import Order
from codealign.trainer.sft.progress import ProgressWriter
from codealign.trainer.sft.sharded_adafactor import ShardedAdafactor

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_OPTIMIZERS = {"adafactor": "adafactor", "adamw": "adamw_torch"}
_RECENT_STEPS = 20
_NAMED_ROWS = 8


def configuration(job: Job, order: Order) -> SFTConfig:
    """Return the job as TRL's configuration: no gradient clipping, no weight decay, the loss of every step."""
    fsdp_config = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "SHARDED_STATE_DICT",
        "activation_checkpointing": job.gradient_checkpointing,
    }
    return SFTConfig(
        output_dir=str(job.checkpoints),
        per_device_train_batch_size=job.micro_batch_size,
        gradient_accumulation_steps=job.batch_size // (job.micro_batch_size * job.workers),
        max_steps=order.total_steps,
        learning_rate=job.learning_rate,
        lr_scheduler_type=_SCHEDULES[job.schedule],
        warmup_steps=math.ceil(job.warmup_ratio * order.total_steps),
        optim=_OPTIMIZERS[job.optimizer],
        weight_decay=0.0,
        max_grad_norm=0.0,
        bf16=False,  # with bfloat16, the weights themselves are bfloat16, without autocast
        activation_checkpointing=job.gradient_checkpointing and not job.sharded,
        fsdp=job.sharded or None,
        fsdp_config=fsdp_config if job.sharded else None,
        ddp_backend=None if job.workers == 1 else "nccl" if job.device == "cuda" else "gloo",
        ddp_find_unused_parameters=False,
        use_cpu=job.device == "cpu",
        seed=job.library_seed,
        data_seed=job.library_seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=job.checkpoint_steps,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=job.device == "cuda",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


class RowSampler(Sampler[int]):  # type: ignore[misc]  # torch is not followed
    """Yields the rows of an epoch in order, followed by empty rows that pad it for the workers.

    Args:
        order: The training's plan.
        padding: Number of empty rows.
    """

    def __init__(self, order: Order, padding: int) -> None:
        self.epoch = 0
        self._order = order
        self._padding = padding

    def __len__(self) -> int:
        return self._order.rows + self._padding

    def __iter__(self) -> Iterator[int]:
        yield from self._order.epoch(self.epoch)
        yield from range(self._order.rows, len(self))


class FineTuner(SFTTrainer):  # type: ignore[misc]  # the library is untyped
    """Trains a model on encoded rows.

    Args:
        job: The training's job.
        model: The model, including adapters.
        tokenizer: The tokenizer, saved with each checkpoint.
        encoded: The rows.
        order: Plan of the steps.
        checkpoints: The training's checkpoints.
        writer: Writes progress, on the first worker; None on the others.
        commits: Whether this worker completes checkpoints: the first worker, or the first of each pod with its own
            disk.
    """

    def __init__(
        self,
        job: Job,
        model: Any,
        tokenizer: Any,
        encoded: EncodedRows,
        order: Order,
        checkpoints: CheckpointFolder,
        writer: ProgressWriter | None,
        *,
        commits: bool,
    ) -> None:
        self._job = job
        self._commits = commits
        self._said = checkpoints.sent()
        self._rows = encoded.rows
        self._order = order
        self._checkpoint_folder = checkpoints
        self._writer = writer
        padding = -len(encoded.rows) % (job.workers * job.micro_batch_size)
        self._sampler = RowSampler(order, padding)
        self._tokens = list(order.sums([len(row.input_ids) for row in encoded.rows]))
        self._trained = list(accumulate(order.sums([row.trained for row in encoded.rows]), initial=0))
        self._times: deque[float] = deque(maxlen=_RECENT_STEPS)
        sharded_optimizer = job.sharded and job.optimizer == "adafactor"
        super().__init__(
            model=model,
            args=configuration(job, order),
            train_dataset=_dataset(encoded, padding, tokenizer.eos_token_id),
            processing_class=tokenizer,
            optimizer_cls_and_kwargs=(ShardedAdafactor, {"lr": job.learning_rate}) if sharded_optimizer else None,
        )

    @property
    def trained_tokens(self) -> int:
        """Number of tokens in the loss so far."""
        return int(self._trained[self.state.global_step])

    def trained_tokens_at(self, step: int) -> int:
        """Return the number of tokens in the loss up to a step."""
        return int(self._trained[step])

    def create_accelerator_and_postprocess(self) -> None:
        """Enable FSDP on CPUs too: torch supports it over gloo, and only accelerate's check excludes it."""
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if self._job.sharded and state.distributed_type == DistributedType.MULTI_CPU:
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            # Same as accelerate does for GPUs; every later state is created from this one.
            state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.is_fsdp_enabled = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a step's numbers to the progress file."""
        super().log(logs, start_time)
        if "loss" not in logs or self._writer is None:
            return
        self._times.append(time.monotonic())
        step = self.state.global_step
        self._say_what_was_sent()
        passed = self._times[-1] - self._times[0]
        steps = len(self._times) - 1
        tokens = sum(self._tokens[step - steps : step])
        self._writer.write(
            "step",
            step=step,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            trained_tokens=self.trained_tokens,
            tokens_per_second=round(tokens / passed, 2) if passed else 0.0,
            seconds_per_step=passed / steps if steps else 0.0,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> RowSampler:  # noqa: ARG002 - part of the base class
        return self._sampler

    def _run_epoch(self, **arguments: Any) -> None:
        # Set here, since accelerate does not reach the sampler of a loader that skips batches after a resume.
        self._sampler.epoch = arguments["epoch"]
        if self.state.global_step >= self.state.max_steps:  # killed after its last step: the loop would add one
            self.control.should_training_stop = True
            return
        self._times.clear()
        self._times.append(time.monotonic())
        super()._run_epoch(**arguments)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with self._readable(resume_from_checkpoint):
            # The base class reads it, too, but outside of this method.
            TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with self._readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with self._readable(checkpoint):
            super()._load_rng_state(checkpoint)

    @contextlib.contextmanager
    def _readable(self, checkpoint: str | None) -> Iterator[None]:
        """Explain a checkpoint whose files are complete but cannot be read."""
        try:
            yield
        except (TrainingError, OSError, torch.OutOfMemoryError):  # a file system may recover
            raise
        except Exception as error:  # every format has its own errors
            # Workers that share out a checkpoint also fail here when another worker dies, which a restart mends.
            if checkpoint is None or self._job.sharded:
                raise
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise TrainingError(
                f"the checkpoint {checkpoint} cannot be read ({said}): it is damaged, or other versions of the "
                "libraries wrote it. Remove it, then submit the training again: it starts from the beginning"
            ) from error

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # The norm is reduced over all workers, so all of them stop here together, before the weights are updated.
        norm = super()._get_grad_norm(model, grad_norm)
        value = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not math.isfinite(float(value)):
            self._refuse_step()
        return norm

    def _refuse_step(self) -> None:
        step = self.state.global_step + 1
        self._diverged(
            step, f"loss or gradient is not finite (loss {float(self._tr_loss):g}); the weights were not updated"
        )

    def _require_finite_weights(self) -> None:
        bad = any(not _local(parameter).isfinite().all() for parameter in self.model.parameters())
        flags = self.accelerator.gather(torch.tensor([int(bad)], device=self.args.device))
        if int(flags.max()):
            self._diverged(self.state.global_step, "the update made weights non-finite; they are discarded")

    def _diverged(self, step: int, what: str) -> NoReturn:
        ids = [self._rows[at].row for at in self._order.step(step)]
        if self._writer:
            self._writer.write("diverged", step=step, rows=ids)
        kept = self._checkpoint_folder.newest()
        more = f" and {len(ids) - _NAMED_ROWS} more" if len(ids) > _NAMED_ROWS else ""
        raise TrainingError(
            f"step {step}: {what}. Rows of the batch: {', '.join(ids[:_NAMED_ROWS])}{more}. "
            f"{f'The checkpoint of step {kept} is kept' if kept else 'There is no checkpoint yet'}. Lower "
            "spec.learning_rate, use spec.dtype float32, or inspect these rows"
        )

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ARG002 - part of the base class
        return str(self._checkpoint_folder.partial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = self._checkpoint_folder
        self._require_finite_weights()
        if folder.leaves and self._left_out(step):
            return
        need = self._checkpoint_bytes()
        if folder.free() < need:
            raise self._full(need)
        self.accelerator.wait_for_everyone()  # all workers must have checked before one writes
        try:
            # Skip SFTTrainer's own method, which would add a model card.
            super(SFTTrainer, self)._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self._commits:
                folder.commit(step, f"{self._job.model_name} on {self._job.dataset_name}")
        except Exception as error:
            folder.abandon()
            if says_full(error) or folder.free() < need:
                raise self._full(need) from error
            raise
        self.accelerator.wait_for_everyone()
        if self._writer and not folder.leaves:
            self._writer.write("checkpoint", step=step)

    def _say_what_was_sent(self) -> None:
        """Report uploaded checkpoints: another start cannot continue from one that is only on this pod's disk."""
        sent = self._checkpoint_folder.sent()
        if self._writer and sent not in (0, self._said):
            self._writer.write("checkpoint", step=sent)
            self._said = sent

    def _left_out(self, step: int) -> bool:
        """Return whether to skip a checkpoint because the previous one is still being uploaded and must be kept."""
        # Decided by the first worker, since all must do the same.
        unsent = int(broadcast_object_list([self._checkpoint_folder.unsent()])[0])
        if unsent and self._writer:
            self._writer.write("checkpoint_left_out", step=step, unsent_step=unsent)
        return unsent > 0

    def _checkpoint_bytes(self) -> int:
        """Return the bytes of a checkpoint: saved weights (with LoRA only the adapters) and optimizer state."""
        saved = [p for p in self.model.parameters() if p.requires_grad or self._job.lora is None]
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [tensor for tensor in [*saved, *states] if isinstance(tensor, torch.Tensor)]
        return int(sum(tensor.numel() * tensor.element_size() for tensor in tensors)) + 2**20

    def _full(self, need: int) -> TrainingError:
        folder = self._checkpoint_folder
        free, kept = folder.free(), folder.newest()
        lacking = f", {_megabytes(need - free)} too little" if free < need else ""
        return TrainingError(
            f"not enough disk space for the checkpoint of step {self.state.global_step} in {self._job.checkpoints}: it "
            f"needs about {_megabytes(need)} and {_megabytes(free)} are free{lacking}. "
            f"{f'The checkpoint of step {kept} is kept' if kept else 'There is no earlier one'}: free disk space, then "
            "submit the training again"
        )


def _local(parameter: torch.Tensor) -> torch.Tensor:
    """Return this worker's part of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _megabytes(amount: int) -> str:
    return f"{amount / 1e6:.1f} MB"


def _dataset(encoded: EncodedRows, padding: int, token: int) -> Dataset:
    ids = [row.input_ids for row in encoded.rows] + [[token, token]] * padding
    labels = [row.labels for row in encoded.rows] + [[IGNORED, IGNORED]] * padding
    return Dataset.from_dict({"input_ids": ids, "labels": labels})
