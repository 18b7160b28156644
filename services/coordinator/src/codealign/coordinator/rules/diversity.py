"""Measures of how much a set of texts repeats itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codealign.coordinator.rules import near


@dataclass(frozen=True)
class Diversity:
    """Measures of a set of texts."""

    distinct_1: float
    """Distinct words divided by all words."""
    distinct_2: float
    """Distinct pairs of adjacent words divided by all such pairs."""
    similarity: float
    """Mean estimated Jaccard similarity of word 5-grams, over all pairs of texts."""


def measure(texts: Sequence[str]) -> Diversity:
    """Measure a set of texts."""
    return Diversity(distinct(texts, 1), distinct(texts, 2), near.mean_similarity(texts))


def distinct(texts: Iterable[str], n: int) -> float:
    """Return the number of distinct word n-grams divided by the number of all n-grams, or 0 if there is none.

    distinct-n: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models". It falls as
    texts are added, so compare sets of similar size.
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        found = near.words(text)
        grams = list(zip(*(found[start:] for start in range(n)), strict=False))
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0
