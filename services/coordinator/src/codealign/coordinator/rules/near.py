"""Near duplicates among texts, by MinHash and locality-sensitive hashing, with little memory.

A sketch contains PERMUTATIONS minima over a text's shingles. It is divided into bands; texts that share a band are
candidates. The strategy (`STRATEGIES`) decides which candidates are duplicates:

- "similarity": those whose estimated Jaccard similarity reaches the threshold.
- "band-collision": all of them, and texts that collide with a dropped text are dropped as well. The paper's scripts do
  this: they join all colliding texts and keep one from each cluster.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import eq

from rensa import RMinHash

PERMUTATIONS = 250
SHINGLE_WORDS = 5
SIMILARITY = "similarity"
BAND_COLLISION = "band-collision"
STRATEGIES = (SIMILARITY, BAND_COLLISION)
DEFAULT_STRATEGY = SIMILARITY
RECALL = 0.99
"""Minimum share of pairs just at the threshold that become candidates, for the strategy "similarity"."""

_WORD = re.compile(r"\w+")
_HASH_SEED = 1
_NOTHING = -1
# Two 16-bit values agree by chance once in 65,536. Bands must not, so 16 bits are used from three values per band on.
_ROWS_OF_16_BITS = 3


@lru_cache
def bands_for(threshold: float, strategy: str = SIMILARITY) -> tuple[int, int]:
    """Return the number of bands and of rows per band for PERMUTATIONS values.

    "similarity" uses the longest bands whose recall at the threshold is RECALL (or the shortest, if none reaches it):
    candidates that are not similar only cost time. "band-collision" weighs both errors equally, as is usual for LSH
    parameters: it minimizes the area of collisions below the threshold and of misses above it.
    """
    if strategy == SIMILARITY:
        for rows in range(PERMUTATIONS, 1, -1):
            bands = PERMUTATIONS // rows
            if _collision(threshold, bands, rows) >= RECALL:
                return bands, rows
        return PERMUTATIONS, 1
    choices = [(bands, rows) for bands in range(1, PERMUTATIONS + 1) for rows in range(1, PERMUTATIONS // bands + 1)]
    return min(choices, key=lambda choice: _error(threshold, *choice))


def _collision(similarity: float, bands: int, rows: int) -> float:
    return 1.0 - (1.0 - similarity**rows) ** bands


def _error(threshold: float, bands: int, rows: int, steps: int = 100) -> float:
    """Return the area of wrong decisions over all similarities."""
    total = 0.0
    for step in range(steps):
        similarity = (step + 0.5) / steps
        collision = _collision(similarity, bands, rows)
        total += collision if similarity < threshold else 1.0 - collision
    return total


class NearDuplicates:
    """An index of texts that finds near duplicates.

    Args:
        threshold: Jaccard similarity of case-insensitive word 5-grams at which two texts are near duplicates.
        strategy: One of STRATEGIES.
    """

    def __init__(self, threshold: float, strategy: str = DEFAULT_STRATEGY) -> None:
        self._threshold, self._checks = threshold, strategy == SIMILARITY
        self._bands, self._rows = bands_for(threshold, strategy)
        self._owners: list[str] = []
        """Owners by the texts' numbers. Empty: forgotten."""
        self._code = "H" if self._rows >= _ROWS_OF_16_BITS else "I"
        self._sketches = array(self._code)
        # A hash table of all bands: the newest entry of each bucket, and for each entry its predecessor.
        self._newest = array("i", [_NOTHING]) * 1024
        self._before = array("i")
        self._last: tuple[str, array[int]] | None = None

    def find(self, text: str) -> tuple[str, float] | None:
        """Return the first item that the text is near to, with the estimated similarity, or None."""
        sketch = self._sketch(text)
        for number in self._candidates(sketch):
            if not self._owners[number]:
                continue
            similarity = self._similarity(sketch, number)
            if not self._checks or similarity >= self._threshold:
                return self._owners[number], similarity
        return None

    def add(self, owner: str, text: str) -> None:
        """Add a text under its owner's id."""
        sketch = self._sketch(text)
        if (len(self._owners) + 1) * self._bands > len(self._newest):
            self._grow()
        self._owners.append(owner)
        self._sketches.extend(sketch)
        self._link(sketch)

    def drop(self, owner: str, text: str) -> None:
        """Record that a text was dropped as the owner's duplicate: with "band-collision" it goes on to link others."""
        if not self._checks:
            self.add(owner, text)

    def forget(self, owner: str) -> None:
        """Forget an owner's texts and those linked to them. Takes time linear in the number of texts."""
        self._owners = ["" if each == owner else each for each in self._owners]

    def _sketch(self, text: str) -> array[int]:
        if self._last is None or self._last[0] != text:  # `add` follows `find`
            self._last = text, array(self._code, _minima(text, 16 if self._code == "H" else 32))
        return self._last[1]

    def _candidates(self, sketch: array[int]) -> list[int]:
        """Return the numbers of texts that share a band with the sketch, in ascending order."""
        found = set()
        rows, mask = self._rows, len(self._newest) - 1
        for band, bucket in enumerate(self._buckets(sketch)):
            entry = self._newest[bucket & mask]
            while entry != _NOTHING:
                number, other = divmod(entry, self._bands)
                if other == band and number not in found:
                    start = number * PERMUTATIONS + band * rows
                    if self._sketches[start : start + rows] == sketch[band * rows : (band + 1) * rows]:
                        found.add(number)
                entry = self._before[entry]
        return sorted(found)

    def _similarity(self, sketch: array[int], number: int) -> float:
        start = number * PERMUTATIONS
        agreeing: int = sum(map(eq, sketch, self._sketches[start : start + PERMUTATIONS]))
        return agreeing / PERMUTATIONS

    def _link(self, sketch: array[int]) -> None:
        newest, before, mask = self._newest, self._before, len(self._newest) - 1
        for bucket in self._buckets(sketch):
            place = bucket & mask
            entry = len(before)
            before.append(newest[place])
            newest[place] = entry

    def _buckets(self, sketch: array[int]) -> list[int]:
        """Return a hash of each band, independent of the table's size."""
        data, width = sketch.tobytes(), self._rows * sketch.itemsize
        return [zlib.crc32(data[band * width : (band + 1) * width], band) for band in range(self._bands)]

    def _grow(self) -> None:
        size = len(self._newest)
        while (len(self._owners) + 1) * self._bands > size:
            size *= 2
        self._newest, self._before = array("i", [_NOTHING]) * size, array("i")
        for number in range(len(self._owners)):
            self._link(self._sketches[number * PERMUTATIONS : (number + 1) * PERMUTATIONS])


def mean_similarity(texts: Sequence[str]) -> float:
    """Return the mean estimated Jaccard similarity over all pairs of texts, or 0 for fewer than two.

    A pair's estimate is the share of equal values in the two sketches. The pairs that agree in a value are counted by
    the value, so the time grows with the texts, not with the pairs.
    """
    pairs = len(texts) * (len(texts) - 1) // 2
    if not pairs:
        return 0.0
    values = [Counter[int]() for _ in range(PERMUTATIONS)]
    for text in texts:
        for counter, value in zip(values, _minima(text, 32), strict=True):
            counter[value] += 1
    agreeing = sum(count * (count - 1) // 2 for counter in values for count in counter.values())
    return agreeing / (pairs * PERMUTATIONS)


def words(text: str) -> list[str]:
    """Return a text's words, in lower case."""
    return _WORD.findall(text.casefold())


def shingles(text: str) -> set[str]:
    """Return a text's case-insensitive word 5-grams; fewer words form a single one."""
    return set(_grams(words(text)))


def _grams(found: Sequence[str]) -> Iterator[str]:
    for start in range(max(1, len(found) - SHINGLE_WORDS + 1)):
        yield " ".join(found[start : start + SHINGLE_WORDS])


def _minima(text: str, bits: int) -> list[int]:
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=_HASH_SEED)
    sketch.update(list(shingles(text)))
    mask = (1 << bits) - 1
    return [(value ^ value >> bits) & mask for value in sketch.digest()]
