"""Write the trained model as a servable directory: weights, tokenizer, chat template, generation settings, card."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import peft

from codealign.trainer.sft.card import Card, model_card
from codealign.trainer.sft.checkpoints import says_full
from codealign.trainer.sft.encoding import end_token
from codealign.trainer.sft.job import Job, TrainingError
from codealign.trainer.sft.loading import add_lora, load_model
from codealign.trainer.sft.training import FineTuner


def write_result(job: Job, tuner: FineTuner, tokenizer: Any, card: Card) -> None:
    """Write the trained model. Called by every worker, since a sharded model is gathered first.

    Raises:
        TrainingError: The disk is full.
    """
    weights = tuner.accelerator.get_state_dict(tuner.model) if job.sharded else None
    if not tuner.is_world_process_zero():
        return
    model = _whole_model(job, tuner, tokenizer, weights)
    _name_end_tokens(model, tokenizer)
    partial = job.result.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial, state_dict=None if job.lora else weights)
        tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(model_card(job, card), encoding="utf-8", newline="\n")
        _sync(partial)
        shutil.rmtree(job.result, ignore_errors=True)
        partial.rename(job.result)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if says_full(error):
            raise TrainingError(
                f"not enough disk space for the trained model in {job.output}: only "
                f"{shutil.disk_usage(job.output).free / 1e6:.1f} MB are free. All steps are done and the last "
                "checkpoint is kept: free disk space, then submit the training again"
            ) from error
        raise


def _whole_model(job: Job, tuner: FineTuner, tokenizer: Any, weights: dict[str, Any] | None) -> Any:
    """Return the model with merged adapters."""
    model = tuner.accelerator.unwrap_model(tuner.model)
    if job.lora is None:
        return model
    if weights is not None:  # sharded: load the adapters into a fresh copy of the base
        base, _ = load_model(job, tokenizer)
        model = add_lora(base, job.lora, low_precision=True)
        adapters = {name: value for name, value in weights.items() if "lora_" in name}
        model.load_state_dict(adapters, strict=False)
    assert isinstance(model, peft.PeftModel)
    return model.merge_and_unload()


def _name_end_tokens(model: Any, tokenizer: Any) -> None:
    """Add the chat template's end token to the tokens that end generation."""
    known = model.generation_config.eos_token_id
    known = [] if known is None else [known] if isinstance(known, int) else list(known)
    end = end_token(tokenizer)
    ends = [end, *(token for token in known if token != end)]
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = True


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
