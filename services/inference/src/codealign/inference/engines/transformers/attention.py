"""Attention of one new token per row, over a prompt prefix that rows share and over the columns of each row alone.

Rows with the same few-shot prefix read its keys and values once for all of them, as one matrix product, instead of
once each; both parts are combined by their softmax sums (as in Hydragen, arXiv 2402.05099). On a CPU a decode step
waits for memory, so this saves the time of the reads, and the prefix is not copied into the rows' own columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "codealign_shared_prefix"
_OTHER_KINDS = ("softcap", "s_aux", "position_bias", "sliding_window")


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that share a prefix."""

    keys: list[Any]
    """Of each layer, `[heads, prefix columns, head size]`."""
    values: list[Any]
    rows: range
    """Their places in `Groups.order`."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a decode step."""

    groups: list[Group]
    order: Any
    """Row numbers, one group after the other, `[rows with a prefix]`."""


_step: ContextVar[Groups | None] = ContextVar("step", default=None)


@contextlib.contextmanager
def sharing(groups: Groups | None) -> Iterator[None]:
    """Set the groups of the forward pass inside."""
    token = _step.set(groups)
    try:
        yield
    finally:
        _step.reset(token)


def attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, scaling: float, **more: Any
) -> tuple[Any, None]:
    """Return the attention's output `[rows, tokens, heads, head size]`, as transformers calls for it.

    Args:
        module: The layer.
        query: `[rows, heads, tokens, head size]`.
        key: The rows' own columns, `[rows, key heads, columns, head size]`.
        value: As `key`.
        attention_mask: Added to the scores of own columns, `[rows, 1, tokens, columns]`.
        scaling: Factor of the scores.
        more: What transformers passes besides.
    """
    if query.shape[2] != 1 or attention_mask is None:
        output: tuple[Any, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
        return output
    if unknown := sorted(name for name in _OTHER_KINDS if more.get(name) is not None):
        raise ValueError(f"attention with {', '.join(unknown)} is not softmax over scaled products alone")
    groups = _step.get()
    rows, heads, _, size = query.shape
    key_heads = key.shape[1]
    queries = (query * scaling).view(rows, key_heads, heads // key_heads, size)
    own = _own_part(queries, key, value, attention_mask)
    mixed = own[2] / own[1] if groups is None else _combined(own, _prefix_part(queries, groups, module.layer_idx))
    return mixed.view(rows, 1, heads, size), None


_Part = tuple[Any, Any, Any]  # the scores' maximum, the sum of exp(score - maximum), the values weighted by these


def _own_part(queries: Any, keys: Any, values: Any, mask: Any) -> _Part:
    """Each `[rows, key heads, heads per key head, 1 or head size]`."""
    rows, key_heads = queries.shape[:2]
    columns = keys.shape[2]
    bias = mask.expand(rows, key_heads, 1, columns).reshape(rows * key_heads, 1, columns)
    scores = torch.baddbmm(bias, queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2))
    parts = _softmax_part(scores, values.flatten(0, 1))
    return tuple(part.unflatten(0, (rows, key_heads)) for part in parts)


def _prefix_part(queries: Any, groups: Groups, layer: int) -> _Part:
    """As `_own_part`; rows without a prefix have a maximum of minus infinity."""
    rows, key_heads, per_head, size = queries.shape
    # [key heads, rows of all groups * heads per key head, head size]
    ordered = queries.index_select(0, groups.order).transpose(0, 1).reshape(key_heads, -1, size)
    parts = [
        _softmax_part(
            torch.bmm(
                ordered[:, group.rows.start * per_head : group.rows.stop * per_head],
                group.keys[layer].transpose(1, 2),
            ),
            group.values[layer],
        )
        for group in groups.groups
    ]
    found = []
    for number, empty in enumerate((float("-inf"), 0.0, 0.0)):
        joined = torch.cat([part[number] for part in parts], dim=1)
        by_row = joined.unflatten(1, (-1, per_head)).transpose(0, 1)
        found.append(by_row.new_full((rows, *by_row.shape[1:]), empty).index_copy_(0, groups.order, by_row))
    return found[0], found[1], found[2]


def _softmax_part(scores: Any, values: Any) -> _Part:
    peak = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(peak).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    return peak, total, torch.bmm(weights, values)


def _combined(one: _Part, other: _Part) -> Any:
    peak = torch.maximum(one[0], other[0])
    first, second = (one[0] - peak).exp_(), (other[0] - peak).exp_()
    total = one[1] * first + other[1] * second
    return one[2] * (first / total) + other[2] * (second / total)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
