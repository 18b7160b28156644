"""The base model and its tokenizer, ready to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from codealign.trainer.sft.encoding import prepare_tokenizer
from codealign.trainer.sft.job import Job, LoraSettings, TrainingError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_tokenizer(folder: Path) -> tuple[Any, list[str]]:
    """The tokenizer, with what it lacked installed.

    Returns:
        The tokenizer, and notes for people.

    Raises:
        TrainingError: There is none that can be used.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a missing file, a damaged one, an unknown class: many types
        raise TrainingError(
            f"{folder} has no usable tokenizer ({_first_line(error)}): tokenizer.json and tokenizer_config.json belong "
            "beside the weights"
        ) from error
    return tokenizer, prepare_tokenizer(tokenizer)


def load_model(job: Job, tokenizer: Any) -> tuple[Any, list[str]]:
    """The base model with all its parameters, without dropout, with a row of embeddings for every token.

    Returns:
        The model, and notes for people.

    Raises:
        TrainingError: It cannot be loaded.
    """
    notes: list[str] = []
    try:
        config = transformers.AutoConfig.from_pretrained(job.model, local_files_only=True)
        if dropped := _without_dropout(config):
            notes.append(f"dropout of the base model is off: {', '.join(dropped)}")
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            job.model,
            config=config,
            dtype=_DTYPES[job.dtype],
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # damaged data, shapes that do not fit the configuration, memory
        raise TrainingError(f"the model in {job.model} cannot be loaded: {_first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise TrainingError(
            f"the weights in {job.model} lack {len(missing)} tensors of the model ({missing[0]}, ...): fetch them again"
        )
    if added := _fit_vocabulary(model, len(tokenizer)):
        notes.append(f"{added} row{'s were' if added > 1 else ' was'} added to the embeddings for new tokens")
    model.config.use_cache = False
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, notes


def add_lora(model: Any, settings: LoraSettings, *, low_precision: bool) -> Any:
    """Freeze the model and put adapters in.

    Args:
        model: The base model.
        settings: The adapters'.
        low_precision: Keep them in the model's own precision, which FSDP needs; else they are float32.

    Raises:
        TrainingError: A target module does not exist.
    """
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules) or "all-linear",
        bias="none",
    )
    try:
        return peft.get_peft_model(model, config, autocast_adapter_dtype=not low_precision)
    except ValueError as error:
        raise TrainingError(
            f"spec.lora.target_modules {', '.join(settings.target_modules)}: {_first_line(error)}"
        ) from error


def _without_dropout(config: Any) -> list[str]:
    names = [
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith(("pdrop", "_drop"))) and isinstance(value, float) and value > 0
    ]
    for name in names:
        setattr(config, name, 0.0)
    return sorted(names)


def _fit_vocabulary(model: Any, tokens: int) -> int:
    """Add embedding rows for tokens that have none, each the mean of the others: no chance in it."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    if tokens <= rows:
        return 0
    model.resize_token_embeddings(tokens, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:
                layer.weight[rows:] = layer.weight[:rows].float().mean(dim=0).to(layer.weight.dtype)
    return tokens - rows


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
