"""Write the trained model as a servable directory: weights, tokenizer, chat template, generation settings, card.

A model that was trained with LoRA has merged weights, and its adapter beside them (`codealign.common.adapters`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import peft
import transformers

from codealign.common import adapters
from codealign.common.model_identity import revision
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
    partial = job.result.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model = _trained_model(job, tuner, tokenizer, weights)
        if job.lora:
            if _has_vocabulary_of_base(job, model):
                model.save_pretrained(partial / adapters.FOLDER)
            model = model.merge_and_unload()
        _name_end_tokens(model, tokenizer)
        model.save_pretrained(partial, state_dict=None if job.lora else weights)
        tokenizer.save_pretrained(partial)
        if (partial / adapters.FOLDER).is_dir():
            _complete_adapter(job, partial, tokenizer)
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


def _trained_model(job: Job, tuner: FineTuner, tokenizer: Any, weights: dict[str, Any] | None) -> Any:
    """Return the model, with LoRA as a PeftModel."""
    model = tuner.accelerator.unwrap_model(tuner.model)
    if job.lora is None:
        return model
    if weights is not None:  # sharded: load the adapters into a fresh copy of the base
        base, _ = load_model(job, tokenizer)
        model = add_lora(base, job.lora, low_precision=True)
        trained = {name: value for name, value in weights.items() if "lora_" in name}
        model.load_state_dict(trained, strict=False)
    assert isinstance(model, peft.PeftModel)
    return model


def _has_vocabulary_of_base(job: Job, model: Any) -> bool:
    """Return whether an adapter alone is enough: embeddings of new tokens are not part of it."""
    base = transformers.AutoConfig.from_pretrained(job.model, local_files_only=True)
    rows: int = model.get_input_embeddings().weight.shape[0]
    return rows == int(base.get_text_config().vocab_size)


def _complete_adapter(job: Job, model: Path, tokenizer: Any) -> None:
    """Add to the adapter of a written model what an engine that has the base needs."""
    folder = model / adapters.FOLDER
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's template
    config = json.loads((folder / adapters.CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = job.model_name  # PEFT writes a path of this machine
    (folder / adapters.CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    shutil.copy(model / "generation_config.json", folder)
    with tempfile.TemporaryDirectory() as digests:
        adapters.write_belonging(folder, job.model_name, job.model_revision, revision(model, Path(digests)))


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
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
