"""Load the base model and its tokenizer for training."""

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
    """Load the tokenizer and add what it lacks.

    Returns:
        The tokenizer, and notes for users.

    Raises:
        TrainingError: There is no usable tokenizer.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a missing or damaged file, an unknown class: many types
        raise TrainingError(
            f"{folder} has no usable tokenizer ({_first_line(error)}): add tokenizer.json and tokenizer_config.json"
        ) from error
    return tokenizer, prepare_tokenizer(tokenizer)


def load_model(job: Job, tokenizer: Any) -> tuple[Any, list[str]]:
    """Load the base model without dropout, with an embedding for every token.

    Returns:
        The model, and notes for users.

    Raises:
        TrainingError: The model cannot be loaded.
    """
    notes: list[str] = []
    try:
        config = transformers.AutoConfig.from_pretrained(job.model, local_files_only=True)
        if dropped := _without_dropout(config):
            notes.append(f"dropout of the base model is disabled: {', '.join(dropped)}")
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            job.model,
            config=config,
            dtype=_DTYPES[job.dtype],
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # damaged data, shapes that do not match the configuration, memory
        raise TrainingError(f"the model in {job.model} cannot be loaded: {_first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise TrainingError(
            f"the weights in {job.model} lack {len(missing)} tensors ({missing[0]}, ...): download the model again"
        )
    if added := _fit_vocabulary(model, len(tokenizer)):
        notes.append(f"{added} row{'s were' if added > 1 else ' was'} added to the embeddings for new tokens")
    model.config.use_cache = False
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, notes


def add_lora(model: Any, settings: LoraSettings, *, low_precision: bool) -> Any:
    """Freeze the model and add adapters.

    Args:
        model: The base model.
        settings: Settings of the adapters.
        low_precision: Keep the adapters in the model's precision, which FSDP needs; otherwise they are float32.

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
    """Add embeddings for tokens without one, each the mean of the others, which is deterministic."""
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
