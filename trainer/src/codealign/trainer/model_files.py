"""A model directory's shapes, read from its configuration and the headers of its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codealign.common.errors import FailedPrecondition, InvalidArgument
from codealign.common.safetensors_header import tensor_shapes

_FIELD = "spec.model"


@dataclass(frozen=True)
class ModelFiles:
    """Shapes of a model."""

    tensors: dict[str, tuple[int, ...]]
    """Shape of each weight tensor, by name."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.tensors.values())

    def linear(self) -> Sequence[tuple[int, int]]:
        """Return the shapes of the linear layers that get adapters: all matrices except embeddings and output."""
        return [
            (shape[0], shape[1])
            for name, shape in self.tensors.items()
            if len(shape) == 2 and not any(part in name for part in ("embed", "lm_head", "wte", "wpe", "norm"))
        ]


def read_model_files(folder: Path) -> ModelFiles:
    """Read the shapes of a model directory.

    Raises:
        InvalidArgument: The directory is not a causal language model in safetensors format.
        FailedPrecondition: A file is damaged.
    """
    config = _config(folder)
    architectures = config.get("architectures") or []
    if architectures and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise InvalidArgument(_FIELD, f"{folder} is {', '.join(architectures)}, not a causal language model")
    text = config.get("text_config") or config
    try:
        hidden = int(text.get("hidden_size") or text["n_embd"])
        heads = int(text.get("num_attention_heads") or text["n_head"])
        return ModelFiles(
            tensors=_tensors(folder),
            layers=int(text.get("num_hidden_layers") or text["n_layer"]),
            hidden=hidden,
            intermediate=int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden),
            heads=heads,
            key_value_heads=int(text.get("num_key_value_heads") or heads),
            head_size=int(text.get("head_dim") or hidden // heads),
            vocabulary=int(text["vocab_size"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(
            _FIELD, f"{folder}/config.json lacks a required field or has an invalid one ({error})"
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InvalidArgument(_FIELD, f"{folder} is not a model folder: config.json is missing") from None
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{path} is damaged ({error}): download it again") from error
    if not isinstance(config, dict):
        raise FailedPrecondition(f"{path} is damaged: download it again")
    return config


def _tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InvalidArgument(_FIELD, f"{folder} contains no *.safetensors file: convert its weights")
    found: dict[str, tuple[int, ...]] = {}
    try:
        for file in files:
            found |= tensor_shapes(file)
    except ValueError as error:
        raise FailedPrecondition(str(error)) from error
    return found
