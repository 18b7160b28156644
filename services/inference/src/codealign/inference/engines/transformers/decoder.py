"""The two passes through a causal language model: a piece of one prompt, and one token of every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from codealign.inference.engines.transformers.kv_cache import RowCache

_FULL, _SLIDING = "full_attention", "sliding_attention"


def attention_kinds(config: Any) -> set[str]:
    """The kinds of attention layers of a model, by the names that transformers gives them."""
    text = config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None)
    if kinds:
        return set(kinds)
    slides = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return {_SLIDING if slides else _FULL}


def unsupported_kinds(config: Any) -> set[str]:
    """Kinds of layers that a row's cache cannot serve (recurrent states, chunked attention, ...)."""
    return attention_kinds(config) - {_FULL, _SLIDING}


class Decoder:
    """A model and the masks that it needs; has no state between passes. Call it in `torch.inference_mode`."""

    def __init__(self, model: Any) -> None:
        """Wrap a model whose layers are all of supported kinds."""
        self._model = model
        text = model.config.get_text_config(decoder=True)
        self._kinds = attention_kinds(model.config)
        self._window = getattr(text, "sliding_window", None) or 0
        self._layers: int = text.num_hidden_layers
        self.device = model.device
        self.dtype = model.dtype

    def new_cache(self) -> RowCache:
        """An empty cache for this model."""
        return RowCache(self._layers)

    def release(self) -> None:
        """Let go of the model; no pass follows."""
        self._model = None

    def prefill(self, cache: RowCache, ids: Sequence[int]) -> Any:
        """Run the next tokens of the cache's only row; returns the last one's logits, `[1, vocabulary]`."""
        start, end = cache.begin_prefill(len(ids))
        positions = torch.arange(start, end, device=self.device)
        return self._forward(cache, torch.tensor([ids], device=self.device), positions[None, :], end)

    def decode(self, cache: RowCache, tokens: Sequence[int]) -> Any:
        """Run one token of every row; returns logits, `[rows, vocabulary]`."""
        positions = cache.begin_decode(self.device)
        ids = torch.tensor(tokens, device=self.device)
        return self._forward(cache, ids[:, None], positions[:, None], max(cache.lengths))

    def _forward(self, cache: RowCache, ids: Any, positions: Any, columns: int) -> Any:
        output = self._model(
            input_ids=ids,
            attention_mask=self._masks(positions, columns),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _masks(self, positions: Any, columns: int) -> Any:
        """Additive masks `[rows, 1, tokens, columns]`: a token sees its own column and those before it."""
        column = torch.arange(columns, device=self.device)
        seen = column <= positions[:, None, :, None]
        masks = {}
        for kind in self._kinds:
            visible = seen if kind == _FULL else seen & (column > positions[:, None, :, None] - self._window)
            mask = torch.zeros(visible.shape, dtype=self.dtype, device=self.device)
            masks[kind] = mask.masked_fill_(~visible, torch.finfo(self.dtype).min)
        return masks if len(masks) > 1 else next(iter(masks.values()))
