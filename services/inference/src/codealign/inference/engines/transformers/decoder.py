"""The two passes through a causal language model: a piece of one prompt, and one token of every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from codealign.inference.engines.transformers.attention import NAME, sharing
from codealign.inference.engines.transformers.kv_cache import Prefix, RowCache

_FULL, _SLIDING = "full_attention", "sliding_attention"
_PROBE_TOKENS = 16
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}  # of the largest logit


def attention_kinds(config: Any) -> set[str]:
    """Return the kinds of attention layers of a model, by transformers' names."""
    text = config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None)
    if kinds:
        return set(kinds)
    slides = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return {_SLIDING if slides else _FULL}


def unsupported_kinds(config: Any) -> set[str]:
    """Kinds of layers that a row's cache cannot serve (recurrent states, chunked attention, ...)."""
    return attention_kinds(config) - {_FULL, _SLIDING}


def share_prefixes(model: Any) -> bool:
    """Switch a model on a CPU to the attention that reads shared prefixes once, if it then computes the same.

    Models with windows, and those whose attention is more than softmax over scaled products, keep what they have.
    """
    text = model.config.get_text_config(decoder=True)
    before = text._attn_implementation
    if before != "sdpa" or attention_kinds(model.config) != {_FULL} or model.dtype not in _TOLERANCES:
        return False
    with torch.inference_mode():
        expected = _probe(Decoder(model))
        try:
            model.set_attn_implementation(NAME)
            found = _probe(Decoder(model))
            same = torch.allclose(found, expected, rtol=0, atol=_TOLERANCES[model.dtype] * float(expected.abs().max()))
        except (TypeError, ValueError, RuntimeError, AttributeError):
            same = False
    if not same or text._attn_implementation != NAME:
        model.set_attn_implementation(before)
        return False
    return True


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
        self.shares: bool = text._attn_implementation == NAME
        """Rows may share a prefix's keys and values."""

    def new_cache(self) -> RowCache:
        """Return an empty cache for this model."""
        return RowCache(self._layers)

    def release(self) -> None:
        """Let go of the model; no pass follows."""
        self._model = None

    def prefill(self, cache: RowCache, ids: Sequence[int]) -> Any:
        """Run the next tokens of the cache's only row; returns the last one's logits, `[1, vocabulary]`."""
        start, end = cache.begin_prefill(len(ids))
        positions = torch.arange(start, end, device=self.device)
        masks = self._masks(positions[None, :], end)
        return self._forward(cache, torch.tensor([ids], device=self.device), positions[None, :], masks)

    def decode(self, cache: RowCache, tokens: Sequence[int]) -> Any:
        """Run one token of every row; returns logits, `[rows, vocabulary]`."""
        positions, own = cache.begin_decode(self.device)
        ids = torch.tensor(tokens, device=self.device)
        with sharing(cache.groups()):
            return self._forward(cache, ids[:, None], positions[:, None], self._masks(own[:, None], max(cache.lengths)))

    def _forward(self, cache: RowCache, ids: Any, positions: Any, masks: Any) -> Any:
        output = self._model(
            input_ids=ids,
            attention_mask=masks,
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


def _probe(decoder: Decoder) -> Any:
    """Return the logits of two rows, which share a prefix if the decoder can."""
    prompt = decoder.new_cache()
    prompt.reserve(1, _PROBE_TOKENS, exact=True)
    prompt.begin_empty_row()
    decoder.prefill(prompt, range(1, _PROBE_TOKENS + 1))
    batch = decoder.new_cache()
    prefix = Prefix(prompt, _PROBE_TOKENS - 4) if decoder.shares else None
    batch.append_rows(prompt, 2, _PROBE_TOKENS, prefix)
    decoder.decode(batch, [3, 4])
    return decoder.decode(batch, [5, 6])
