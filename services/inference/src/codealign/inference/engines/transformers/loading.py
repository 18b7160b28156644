"""From a model's name to a model in memory, with one clear sentence for everything that can be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger
from codealign.common.machine import available_memory
from codealign.common.model_identity import revision
from codealign.inference.engines.base import ModelInfo
from codealign.inference.engines.prompts import chat_template_of, first_line, load_tokenizer
from codealign.inference.engines.transformers.decoder import share_prefixes, unsupported_kinds
from codealign.inference.engines.transformers.linear import pack_linears, packing_works
from codealign.inference.engines.transformers.options import EngineOptions
from codealign.inference.sources import default_name, local_source, require_revision
from codealign.inference.weights import parameter_count, require_memory

log = get_logger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to be served."""

    model: Any
    tokenizer: Any
    end_tokens: frozenset[int]
    bytes_per_token: int
    """Keys and values of one token."""
    info: ModelInfo


def load_model(
    source: str,
    *,
    name: str = "",
    dtype: str = "auto",
    device: str = "auto",
    cache_folder: Path,
    options: EngineOptions,
    expected_revision: str = "",
) -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        source: A folder, a hub id or an artifact's URL.
        name: What requests call it; empty is derived from the source.
        dtype: One of `DTYPES`, or auto: float32 on CPU, bfloat16 on CUDA.
        device: As PyTorch writes it, or auto: CUDA where there is one.
        cache_folder: Where downloads and digests of large files are kept.
        options: Sizes and bounds.
        expected_revision: Refuse another one; empty is any.

    Raises:
        ConfigurationError: the model cannot be served; the message says why and what to do.
        FailedPrecondition: it is another revision than the expected one.
    """
    device = device if device != "auto" else ("cuda:0" if torch.cuda.is_available() else "cpu")
    on_cpu = device == "cpu"
    dtype = dtype if dtype != "auto" else ("float32" if on_cpu else "bfloat16")
    torch_dtype = DTYPES[dtype]
    folder = local_source(source, cache_folder)
    config = _config(folder)
    tokenizer = load_tokenizer(folder)
    parameters = parameter_count(folder)
    text = config.get_text_config(decoder=True)
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    bytes_per_token = 2 * text.num_hidden_layers * heads * head_size * torch_dtype.itemsize
    own_context: int = text.max_position_embeddings
    context = min(own_context, options.max_context or own_context)
    pack = on_cpu and options.pack_weights and packing_works(torch_dtype)
    tied = pack and getattr(text, "tie_word_embeddings", False)
    require_memory(
        source,
        parameters,
        torch_dtype.itemsize,
        text.vocab_size * text.hidden_size * torch_dtype.itemsize if tied else 0,
        min(options.kv_cache_bytes + options.prefix_cache_bytes, options.slots * context * bytes_per_token),
        available_memory() if on_cpu else torch.cuda.mem_get_info(device)[0],
    )
    loaded_revision = revision(folder, cache_folder)
    require_revision(source, loaded_revision, expected_revision)
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    model = _weights(folder, torch_dtype, device)
    if pack:
        log.info("weights_packed", layers=pack_linears(model))
    if on_cpu:
        log.info("attention", shares_prefixes=share_prefixes(model))
    info = ModelInfo(
        name=name or default_name(source),
        source=source,
        revision=loaded_revision,
        engine="transformers",
        context_length=context,
        chat_template=chat_template_of(tokenizer),
        # In float64 a row's logits move by some 1e-14 with the batch, far below what a draw distinguishes.
        batch_invariant=dtype == "float64",
        dtype=dtype,
        device=device,
        size_bytes=parameters * torch_dtype.itemsize,
    )
    return LoadedModel(model, tokenizer, _end_tokens(model, tokenizer), bytes_per_token, info)


def _config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} has no config.json: it is not a model folder")
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
    except Exception as error:  # whatever transformers thinks of a file that people edit
        raise ConfigurationError(f"{folder}/config.json cannot be used: {first_line(error)}") from error
    architectures = getattr(config, "architectures", None) or []
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if not causal or (architectures and not any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in architectures)):
        raise ConfigurationError(
            f"{folder} is {', '.join(architectures) or config.model_type}, not a causal language model: "
            "choose one whose architecture ends in ForCausalLM"
        )
    if kinds := unsupported_kinds(config):
        raise ConfigurationError(
            f"{folder} has layers of kind {', '.join(sorted(kinds))}, which the transformers engine does not support: "
            "use vLLM"
        )
    return config


def _weights(folder: Path, dtype: Any, device: str) -> Any:
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, use_safetensors=True
        )
    except Exception as error:  # damaged data, shapes that do not fit the configuration, memory
        raise ConfigurationError(f"the weights in {folder} cannot be loaded: {first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise ConfigurationError(
            f"the weights in {folder} lack {len(missing)} tensors of the model ({missing[0]}, ...): download them again"
        )
    if getattr(model, "_is_stateful", False):
        raise ConfigurationError(f"{folder} is a recurrent model, which the transformers engine does not support")
    return model.eval().to(device)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    for holder in (model.generation_config, model.config, tokenizer):
        ids = getattr(holder, "eos_token_id", None)
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()
