"""The rows of each optimizer step. A function of the seed alone, so that a resumed training continues exactly.

An epoch is a permutation of all rows, cut into batches; its last batch may be smaller. If several workers need equally
many rows, the epoch is padded with empty rows, which have no token in the loss: no row occurs twice in an epoch, and
the batches are the same for any number of workers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Order:
    """The plan of a training.

    Attributes:
        rows: Number of rows in the dataset.
        batch_size: Rows per step, over all workers.
        total_steps: Total number of optimizer steps.
        seed: Determines the permutations.
    """

    rows: int
    batch_size: int
    total_steps: int
    seed: int

    @property
    def steps_in_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return math.ceil(self.rows / self.batch_size)

    def epoch(self, number: int) -> Sequence[int]:
        """Return the rows of an epoch in order."""
        return _permutation(self.rows, self.seed, number)

    def step(self, number: int) -> Sequence[int]:
        """Return the rows of a step; steps count from 1."""
        epoch, at = divmod(number - 1, self.steps_in_epoch)
        return self.epoch(epoch)[at * self.batch_size : (at + 1) * self.batch_size]

    def sums(self, amounts: Sequence[int]) -> Iterator[int]:
        """Yield for each step the sum of its rows' amounts.

        Args:
            amounts: A number for each row, such as its tokens.
        """
        return (sum(amounts[row] for row in self.step(number)) for number in range(1, self.total_steps + 1))


def plan(rows: int, *, batch_size: int, epochs: float, max_steps: int, seed: int) -> Order:
    """Plan a training.

    Args:
        rows: Number of rows in the dataset.
        batch_size: Rows per step.
        epochs: Passes over the rows; may be fractional.
        max_steps: Maximum number of steps. 0: determined by the epochs.
        seed: Determines the permutations.
    """
    steps = max(1, math.ceil(epochs * math.ceil(rows / batch_size)))
    return Order(rows, batch_size, min(steps, max_steps) if max_steps else steps, seed)


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int, epoch: int) -> Sequence[int]:
    order = list(range(rows))
    random.Random(f"codealign order {seed} {epoch}").shuffle(order)  # noqa: S311 - not used for secrets
    return order
