"""Keys and values of several sequences in one preallocated block per layer, written in place.

transformers' own DynamicCache grows by `torch.cat`, which copies the whole cache for every token: at 16 rows of
2,000 tokens of a 1.5B model that is 1.8 GB a step. Here a row's token `t` lies at column `t` of its slot, so there is
no padding, a new row is a copy of its prompt's columns, and a step writes one column per row.

A row may begin with a prefix that other rows share (`Prefix`): then only the columns after it are the row's own.

Invariants: rows `0 … rows-1` are live and columns beyond a row's length hold finite numbers (zeros or stale values),
since a masked column still takes part in the product with its zero weight, and 0 · NaN would be NaN. Memory of rows
that are not live is not written, so that it costs nothing until they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from codealign.inference.engines.transformers.attention import Group, Groups

_BLOCK = 256  # columns; a grown block is copied once per this many steps
_ROW_BLOCK = 8


class _Cursor:
    """Where the coming forward pass writes, and what it sees: shared by all layers of a cache."""

    def __init__(self) -> None:
        self.start = 0
        self.positions: Any = None
        self.row_index: Any = None
        self.rows = 0
        self.length = 0


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's block: `[rows, heads, columns, head size]`, made at the first write, when the sizes are known."""

    is_initialized: bool

    def __init__(self, cursor: _Cursor) -> None:
        super().__init__()
        self._cursor = cursor
        self.row_capacity = 0
        self.column_capacity = 0

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Write the new columns and return all that the pass may see."""
        self.initialize(key_states, value_states)
        at = self._cursor
        if key_states.shape[2] == 1:
            self.keys[at.row_index, :, at.positions] = key_states[:, :, 0]
            self.values[at.row_index, :, at.positions] = value_states[:, :, 0]
        else:
            self.keys[: at.rows, :, at.start : at.length] = key_states
            self.values[: at.rows, :, at.start : at.length] = value_states
        return self.keys[: at.rows, :, : at.length], self.values[: at.rows, :, : at.length]

    def initialize(self, keys: Any, values: Any) -> None:
        """Make the blocks, if this is the first write, for heads and sizes like these."""
        if not self.is_initialized:
            self.dtype, self.device = keys.dtype, keys.device
            self.keys, self.values = self._block(keys), self._block(values)
            self.is_initialized = True

    def get_seq_length(self) -> int:
        """Columns before the coming pass."""
        return self._cursor.start

    def resize(self, rows: int, columns: int, used_rows: int, used_columns: int) -> None:
        """Set the capacity, keeping what is in use."""
        self.row_capacity, self.column_capacity = rows, columns
        if self.is_initialized:
            self.keys = self._grown(self.keys, used_rows, used_columns)
            self.values = self._grown(self.values, used_rows, used_columns)

    def fill(self, first: int, copies: int, source: _Layer, start: int, end: int) -> None:
        """Begin rows with columns `start … end-1` of the source's only row."""
        self.initialize(source.keys, source.values)
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            mine[first : first + copies, :, : end - start] = theirs[:1, :, start:end]
            mine[first : first + copies, :, end - start :] = 0.0

    def _block(self, like: Any) -> Any:
        shape = (self.row_capacity, like.shape[1], self.column_capacity, like.shape[3])
        return torch.empty(shape, dtype=like.dtype, device=like.device)

    def _grown(self, old: Any, rows: int, columns: int) -> Any:
        new = self._block(old)
        new[:rows, :, :columns] = old[:rows, :, :columns]
        new[:rows, :, columns:] = 0.0
        return new


@dataclass(frozen=True, eq=False, slots=True)
class Prefix:
    """The first columns of a prompt, read by several rows."""

    cache: RowCache
    """Its only row begins with them, and is not changed any more."""
    tokens: int


class RowCache(Cache):  # type: ignore[misc]
    """The cache that the model sees; the engine moves its rows about between two passes."""

    def __init__(self, layers: int) -> None:
        """Make an empty cache for a model of `layers` layers."""
        self._cursor = _Cursor()
        super().__init__(layers=[_Layer(self._cursor) for _ in range(layers)])
        self._row_capacity = 0
        self._column_capacity = 0
        self.lengths: list[int] = []
        """The number of own columns of each live row."""
        self._prefixes: list[Prefix | None] = []
        self._groups: Groups | None = None
        self._grouped = True

    @property
    def rows(self) -> int:
        """The number of live rows."""
        return len(self.lengths)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        blocks = [block for layer in self.layers if layer.is_initialized for block in (layer.keys, layer.values)]
        return sum(block.numel() * block.element_size() for block in blocks)

    def reserve(self, rows: int, columns: int, *, exact: bool = False) -> None:
        """Make room for that many rows and columns; without `exact`, in larger steps so that it is seldom done."""
        if rows <= self._row_capacity and columns <= self._column_capacity:
            return
        if not exact:
            columns = -(-columns // _BLOCK) * _BLOCK
            rows = -(-rows // _ROW_BLOCK) * _ROW_BLOCK
        self._row_capacity = max(rows, self._row_capacity)
        self._column_capacity = max(columns, self._column_capacity)
        used = max(self.lengths, default=0)
        for layer in self.layers:
            layer.resize(self._row_capacity, self._column_capacity, self.rows, used)

    def begin_empty_row(self) -> None:
        """Add a row without columns, to be prefilled."""
        self.lengths.append(0)
        self._prefixes.append(None)

    def begin_prefill(self, tokens: int) -> tuple[int, int]:
        """Prepare a pass over the next `tokens` tokens of the only row; returns its first and last+1 column."""
        at = self._cursor
        at.rows, at.start = 1, self.lengths[0]
        at.length = at.start + tokens
        at.positions = torch.tensor([at.start])
        at.row_index = torch.tensor([0])
        self.lengths[0] = at.length
        return at.start, at.length

    def begin_decode(self, device: Any) -> tuple[Any, Any]:
        """Prepare a pass over one new token per row; returns their positions and own columns, each `[rows]`."""
        at = self._cursor
        at.rows, at.start = self.rows, max(self.lengths)
        at.length = at.start + 1
        self.reserve(self.rows, at.length)
        at.positions = torch.tensor(self.lengths, device=device)
        at.row_index = torch.arange(self.rows, device=device)
        before = [prefix.tokens if prefix else 0 for prefix in self._prefixes]
        self.lengths = [length + 1 for length in self.lengths]
        return at.positions + torch.tensor(before, device=device), at.positions

    def groups(self) -> Groups | None:
        """Return the rows by the prefixes that they share; None where no row has one."""
        if not self._grouped:
            self._groups, self._grouped = self._group(), True
        return self._groups

    def append_rows(self, source: RowCache, copies: int, length: int, prefix: Prefix | None = None) -> None:
        """Add `copies` rows that begin with the first `length` columns of the source's only row.

        Args:
            source: Contains the prompt.
            copies: How many rows.
            length: The prompt's tokens.
            prefix: Already contains the first of them; the rows own the rest. None: they own all.
        """
        first = self.rows
        shared = prefix.tokens if prefix else 0
        self.reserve(first + copies, length - shared)
        for mine, theirs in zip(self.layers, source.layers, strict=True):
            mine.fill(first, copies, theirs, shared, length)
        self.lengths += [length - shared] * copies
        self._prefixes += [prefix] * copies
        self._grouped = False

    def remove_row(self, row: int) -> None:
        """Drop a row; the last row takes its place."""
        last = self.rows - 1
        length = self.lengths[last]
        if row != last:
            for layer in self.layers:
                layer.keys[row, :, :length] = layer.keys[last, :, :length]
                layer.values[row, :, :length] = layer.values[last, :, :length]
            self.lengths[row] = length
            self._prefixes[row] = self._prefixes[last]
        self.lengths.pop()
        self._prefixes.pop()
        self._grouped = False

    def prefix(self, length: int) -> RowCache:
        """Return a copy of the first `length` columns of row 0, of exactly that size."""
        copy = RowCache(len(self.layers))
        copy.reserve(1, length, exact=True)
        copy.append_rows(self, 1, length)
        return copy

    def _group(self) -> Groups | None:
        rows_of: dict[tuple[int, int], list[int]] = {}
        for row, prefix in enumerate(self._prefixes):
            if prefix:
                rows_of.setdefault((id(prefix.cache), prefix.tokens), []).append(row)
        if not rows_of:
            return None
        order = [row for rows in rows_of.values() for row in rows]
        groups, start = [], 0
        for rows in rows_of.values():
            prefix = self._prefixes[rows[0]]
            assert prefix is not None
            layers, tokens = prefix.cache.layers, prefix.tokens
            groups.append(
                Group(
                    keys=[layer.keys[0, :, :tokens] for layer in layers],
                    values=[layer.values[0, :, :tokens] for layer in layers],
                    rows=range(start, start + len(rows)),
                )
            )
            start += len(rows)
        return Groups(groups, torch.tensor(order))
