"""Keys and values of prompt prefixes that were computed before.

An entry is a sequence of token ids with its cache. A prompt takes the entry with which it shares the most leading
ids, cut to what is shared: ids are compared, not characters, so reuse is exact however the tokenizer merges across
the prefix's end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from codealign.inference.engines.transformers.kv_cache import RowCache

SHORTEST = 16  # tokens; less is not worth a copy


class PrefixCache:
    """The least recently used entries go when their bytes exceed the bound."""

    def __init__(self, max_bytes: int) -> None:
        """Store at most `max_bytes` of keys and values; 0 disables the cache."""
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, tuple[Any, RowCache]] = OrderedDict()
        self.size_bytes = 0
        """Bytes held now."""

    def longest(self, ids: Sequence[int]) -> tuple[int, RowCache | None]:
        """Return the entry that shares most leading ids with these, and how many it shares.

        At least one id is always left over, since the last one's logits are wanted.
        """
        prompt = torch.tensor(ids)
        best, best_key = 0, b""
        for key, (entry_ids, _) in self._entries.items():
            shared = min(_shared(prompt, entry_ids), len(ids) - 1)
            if shared > best:
                best, best_key = shared, key
        if best < SHORTEST:
            return 0, None
        self._entries.move_to_end(best_key)
        return best, self._entries[best_key][1]

    def wants(self, ids: Sequence[int]) -> bool:
        """Whether these ids are worth an entry: long enough, and no entry begins with them."""
        if self._max_bytes <= 0 or len(ids) < SHORTEST:
            return False
        prompt = torch.tensor(ids)
        return all(_shared(prompt, entry_ids) < len(ids) for entry_ids, _ in self._entries.values())

    def add(self, ids: Sequence[int], cache: RowCache) -> None:
        """Store the cache of exactly these ids and remove entries that are a prefix of them."""
        prompt = torch.tensor(ids)
        for key, (entry_ids, _) in list(self._entries.items()):
            if _shared(prompt, entry_ids) == len(entry_ids):
                self._drop(key)
        if cache.size_bytes > self._max_bytes:
            return
        self._entries[prompt.numpy().tobytes()] = (prompt, cache)
        self.size_bytes += cache.size_bytes
        while self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self.size_bytes -= self._entries.pop(key)[1].size_bytes


def _shared(one: Any, other: Any) -> int:
    """Return the number of leading ids that two sequences share."""
    length = min(len(one), len(other))
    different = (one[:length] != other[:length]).nonzero()
    return int(different[0, 0]) if len(different) else length
