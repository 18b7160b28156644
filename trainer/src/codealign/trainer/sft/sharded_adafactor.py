"""Adafactor for parameters that FSDP2 shards across workers.

The update is that of `transformers.Adafactor` without relative steps and parameter scaling (arXiv 1804.04235,
algorithms
4 and 5): each matrix keeps the means of its squared gradients over rows and columns. FSDP2 shards a parameter along its
first dimension, so column means and root mean squares are reduced over all workers; the library's optimizer would
compute a different update from a shard alone. The state consists of DTensors, so that distributed checkpoints can
shard and gather it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard

_EPSILON = 1e-30
_CLIP_THRESHOLD = 1.0
_DECAY_RATE = -0.8


class ShardedAdafactor(torch.optim.Optimizer):  # type: ignore[misc]  # torch is not followed
    """Adafactor for DTensors sharded along their first dimension.

    Args:
        params: The parameters.
        lr: Learning rate.
    """

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:  # noqa: ARG002 - part of the interface
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, float(group["lr"]))

    def _update(self, parameter: DTensor, rate: float) -> None:
        gradient = parameter.grad.to_local().float()
        state = self.state[parameter]
        if not state:
            _start(state, parameter)
        state["step"] += 1
        decay = 1.0 - math.pow(state["step"], _DECAY_RATE)
        squares = gradient**2 + _EPSILON
        workers = parameter.device_mesh.get_group()
        if parameter.dim() >= 2:
            update = _factored(state, squares, decay, parameter, workers).mul_(gradient)
        else:
            second = state["exp_avg_sq"].to_local()
            second.mul_(decay).add_(squares, alpha=1.0 - decay)
            update = second.rsqrt().mul_(gradient)
        rms = (_summed((update**2).sum(), workers) / parameter.numel()).sqrt_()
        update.div_((rms / _CLIP_THRESHOLD).clamp_(min=1.0)).mul_(rate)
        local = parameter.to_local()
        local.copy_(local.float().sub_(update))


def _start(state: dict[str, Any], parameter: DTensor) -> None:
    state["step"] = 0
    if parameter.dim() < 2:
        state["exp_avg_sq"] = _zeros(parameter, tuple(parameter.shape), sharded=True)
        return
    shape = tuple(parameter.shape)
    state["exp_avg_sq_row"] = _zeros(parameter, shape[:-1], sharded=True)
    # A matrix's columns span all shards; a stack of matrices is sharded between matrices.
    state["exp_avg_sq_col"] = _zeros(parameter, shape[:-2] + shape[-1:], sharded=parameter.dim() > 2)


def _zeros(parameter: DTensor, shape: tuple[int, ...], *, sharded: bool) -> DTensor:
    mesh = parameter.device_mesh
    local_shape = (parameter.to_local().shape[0], *shape[1:]) if sharded else shape
    local = torch.zeros(local_shape, dtype=torch.float32, device=parameter.to_local().device)
    stride = torch.empty(shape, device="meta").stride()
    placement = Shard(0) if sharded else Replicate()
    return DTensor.from_local(local, mesh, [placement], run_check=False, shape=torch.Size(shape), stride=stride)


def _factored(
    state: dict[str, Any], squares: torch.Tensor, decay: float, parameter: DTensor, workers: dist.ProcessGroup
) -> torch.Tensor:
    row, column = state["exp_avg_sq_row"].to_local(), state["exp_avg_sq_col"].to_local()
    row.mul_(decay).add_(squares.mean(dim=-1), alpha=1.0 - decay)
    if parameter.dim() == 2:
        over_rows = _summed(squares.sum(dim=0), workers) / parameter.shape[0]
        row_mean = _summed(row.sum(), workers) / parameter.shape[0]
    else:
        over_rows = squares.mean(dim=-2)
        row_mean = row.mean(dim=-1, keepdim=True)
    column.mul_(decay).add_(over_rows, alpha=1.0 - decay)
    return (row / row_mean).rsqrt_().unsqueeze(-1) * column.rsqrt().unsqueeze(-2)


def _summed(value: torch.Tensor, workers: dist.ProcessGroup) -> torch.Tensor:
    dist.all_reduce(value, group=workers)
    return value
