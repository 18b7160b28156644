"""Linear layers on CPU with weights laid out for a decode step.

PyTorch sends float32 products to MKL, which on AMD processors runs neither with AVX-512 nor well on the flat matrices
of a decode step. oneDNN with prepacked weights measured, on 2 Zen 5 cores and a [rows, 1536] x [1536, 8960] product:
rows 1: 1.6 against 3.0 ms, 16: 1.9 against 6.5 ms, 256: 16 against 42 ms. The operators are the ones that PyTorch's
own compiler emits.

oneDNN has no float64. There a transposed weight spares MKL its own packing, which is most of a product with few rows:
one Sapphire Rapids core, [16, 192] x [192, 1024]: 142 against 287 us.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_ROWS_HINT = 16  # the layout is chosen for this many rows; it serves any number


class PackedLinear(nn.Module):  # type: ignore[misc]
    """A linear layer whose weight exists only in oneDNN's layout."""

    def __init__(self, linear: Any) -> None:
        """Pack the layer's weight; the caller drops the layer."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS_HINT)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: Any) -> Any:
        """Return `linear(inputs)`, save float rounding."""
        return torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")


class TransposedLinear(nn.Module):  # type: ignore[misc]
    """A linear layer that keeps its weight as `[inputs, outputs]`."""

    def __init__(self, linear: Any) -> None:
        """Copy the layer's weight; the caller drops the layer."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._weight = linear.weight.detach().t().contiguous()
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: Any) -> Any:
        """Return `linear(inputs)`, save float rounding."""
        product = inputs @ self._weight
        return product if self._bias is None else product + self._bias


def packing_works(dtype: Any) -> bool:
    """Whether this build of PyTorch on this processor multiplies packed weights of `dtype`, and does it right."""
    if dtype == torch.float64:
        return True
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.no_grad():
            linear = nn.Linear(64, 32, dtype=dtype)
            inputs = torch.randn(3, 64, dtype=dtype)
            return bool(torch.allclose(PackedLinear(linear)(inputs), linear(inputs), atol=2e-2, rtol=2e-2))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def pack_linears(model: Any) -> int:
    """Replace every plain `nn.Linear` of the model by its packed form, one at a time; returns how many.

    A tied output projection gets a copy of its own, since the embedding looks rows up in the plain layout.
    """
    packed = 0
    with torch.no_grad():
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    packs = TransposedLinear if child.weight.dtype == torch.float64 else PackedLinear
                    setattr(parent, name, packs(child))
                    packed += 1
    return packed
