"""Which rows each optimizer step sees. A function of the seed alone, so that a resumed training goes on exactly.

An epoch is a permutation of all rows, cut into batches; the last one of an epoch may be smaller. Where several
workers need equally many rows, the epoch's end is filled with empty rows, which have no token in the loss: a row is
never seen twice in an epoch, and the batches are the same for any number of workers.
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
        rows: Rows of the dataset.
        batch_size: Rows of a step, over all workers.
        total_steps: Optimizer steps in all.
        seed: Decides the permutations.
    """

    rows: int
    batch_size: int
    total_steps: int
    seed: int

    @property
    def steps_in_epoch(self) -> int:
        """Optimizer steps of one pass over the rows."""
        return math.ceil(self.rows / self.batch_size)

    def epoch(self, number: int) -> Sequence[int]:
        """The rows of an epoch in their order."""
        return _permutation(self.rows, self.seed, number)

    def step(self, number: int) -> Sequence[int]:
        """The rows of a step; steps count from 1."""
        epoch, at = divmod(number - 1, self.steps_in_epoch)
        return self.epoch(epoch)[at * self.batch_size : (at + 1) * self.batch_size]

    def sums(self, amounts: Sequence[int]) -> Iterator[int]:
        """For each step what its rows' amounts add up to.

        Args:
            amounts: A number for each row: its tokens, for example.
        """
        return (sum(amounts[row] for row in self.step(number)) for number in range(1, self.total_steps + 1))


def plan(rows: int, *, batch_size: int, epochs: float, max_steps: int, seed: int) -> Order:
    """Lay out a training.

    Args:
        rows: Rows of the dataset.
        batch_size: Rows of a step.
        epochs: Passes over the rows; need not be whole.
        max_steps: Steps at most. 0: as the epochs say.
        seed: Decides the permutations.
    """
    steps = max(1, math.ceil(epochs * math.ceil(rows / batch_size)))
    return Order(rows, batch_size, min(steps, max_steps) if max_steps else steps, seed)


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int, epoch: int) -> Sequence[int]:
    order = list(range(rows))
    random.Random(f"codealign order {seed} {epoch}").shuffle(order)  # noqa: S311 - an order, no secret
    return order
