"""Choosing the next token of every row.

A draw is one uniform number through the inverse of the distribution's cumulative sum, in token order. The number is
a hash of the sample's seed and the token's index, so a sample carries no generator state: what else is in the batch,
and how far it has come, cannot touch it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import torch

from codealign.inference.engines.base import Sampling

_NUCLEUS_WIDTHS = (256, 4096)  # likeliest tokens that are sorted first; only a wider nucleus sorts them all

_TINY_TEMPERATURE = 1e-6
_LEAST_DIVISOR = 1e-30  # above 0 in float32


def uniform(seed: int, index: int) -> float:
    """Return a number in [0, 1) of 53 random bits, determined by the sample's seed and the token's index."""
    digest = blake2b(struct.pack("<QQ", seed, index), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def choose(logits: Any, samplings: Sequence[Sampling], seeds: Sequence[int], indices: Sequence[int]) -> list[int]:
    """Choose one token per row.

    Args:
        logits: Shaped `[rows, vocabulary]`.
        samplings: Each row's parameters.
        seeds: Each row's sample seed.
        indices: How many tokens each row has generated before this one.

    Raises:
        ArithmeticError: Logits are not finite; any token would be arbitrary.
    """
    if not bool(torch.isfinite(logits.max(dim=-1).values).all()):  # the maximum of a row with NaN is NaN
        raise ArithmeticError(
            "its logits are not finite, as after an overflow: set CODEALIGN_INFERENCE_DTYPE to bfloat16 or float32, or "
            "check the weights"
        )
    groups: dict[tuple[float, float, int], list[int]] = {}
    for row, sampling in enumerate(samplings):
        groups.setdefault((sampling.temperature, sampling.top_p, sampling.top_k), []).append(row)
    chosen = [0] * len(samplings)
    for (temperature, top_p, top_k), rows in groups.items():
        part = logits if len(groups) == 1 else logits[rows]
        if temperature == 0.0:
            tokens = part.argmax(dim=-1)
        else:
            draws = [uniform(seeds[row], indices[row]) for row in rows]
            tokens = _draw(_distribution(part, temperature, top_p, top_k), draws)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            chosen[row] = token
    return chosen


def _distribution(logits: Any, temperature: float, top_p: float, top_k: int) -> Any:
    """Probabilities (not normalised after the cuts), shaped like the logits: temperature, then top_k, then top_p."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    if temperature < _TINY_TEMPERATURE:
        # The quotients would overflow, and a row of NaN would end the whole batch.
        precise = precise - precise.max(dim=-1, keepdim=True).values
        temperature = max(temperature, _LEAST_DIVISOR)
    probabilities = torch.softmax(precise / temperature, dim=-1)
    if 0 < top_k < probabilities.shape[-1]:
        likeliest = probabilities.topk(top_k, dim=-1).values
        probabilities = probabilities.where(probabilities >= likeliest[:, -1:], 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if top_p < 1.0:
        probabilities = probabilities.where(probabilities >= _nucleus_floor(probabilities, top_p), 0.0)
    return probabilities


def _nucleus_floor(probabilities: Any, top_p: float) -> Any:
    """Each row's least probability inside the smallest set of tokens whose mass reaches `top_p`; `[rows, 1]`."""
    floor = torch.zeros_like(probabilities[:, :1])
    vocabulary = probabilities.shape[-1]
    open_rows = torch.arange(probabilities.shape[0], device=probabilities.device)
    for width in (*(width for width in _NUCLEUS_WIDTHS if width < vocabulary), vocabulary):
        part = probabilities[open_rows]
        ordered = part.topk(width, dim=-1).values if width < vocabulary else part.sort(dim=-1, descending=True).values
        mass = ordered.cumsum(dim=-1, dtype=torch.float64)
        members = ((mass - ordered) < top_p).sum(dim=-1, keepdim=True)
        floor[open_rows] = ordered.gather(-1, members - 1)
        open_rows = open_rows[mass[:, -1] < top_p]
        if len(open_rows) == 0:
            break
    return floor


def _draw(probabilities: Any, draws: Sequence[float]) -> Any:
    mass = probabilities.cumsum(dim=-1, dtype=torch.float64)
    total = mass[:, -1:]
    targets = torch.tensor(draws, dtype=torch.float64, device=mass.device)[:, None] * total
    tokens = torch.searchsorted(mass, targets, right=True)
    if bool((tokens == probabilities.shape[-1]).any()):
        # Rounding put the target at the very end of the mass: then it means the last token that has any.
        last = (probabilities.shape[-1] - 1) - (probabilities.flip(-1) > 0).to(torch.uint8).argmax(dim=-1, keepdim=True)
        tokens = torch.minimum(tokens, last)
    return tokens[:, 0]
