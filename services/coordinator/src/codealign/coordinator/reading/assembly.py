"""One program out of the Python blocks of an answer.

One block is the program, byte for byte. Several are joined in their order, with these rules:

1. *What cannot compile* (a shell's transcript, an output, a fragment) is left out, unless all blocks together compile:
   then they are pieces of one text.
2. *Demonstrations* are left out: a block that gives no name that the tests need, directly or through other blocks, and
   that changes nothing of others. So an example that reads input, fails on purpose or takes long is not run. Where the
   tests reach names without writing them (`eval`, `getattr`, doctest), or need none of any block, nothing is.
3. *Drafts* are left out: a block all of whose names a later block gives, functions and classes among them, without
   using the earlier ones.
4. `from __future__` imports of later blocks come first; in their place stands `pass`.

In doubt a block stays. Of tests nothing is left out but what cannot compile and holds no assertion.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import accumulate

from codealign.common.foreign_python import without_warnings
from codealign.common.text import lines
from codealign.coordinator.reading.python_code import BOM, SETTINGS, Names, compiles, names

MAX_COMPARED = 100
"""Blocks that are compared with one another. An answer has a few; of more, all that compile stay."""


def program(blocks: Sequence[str], tests: str) -> str:
    """The program that an answer's blocks make.

    Args:
        blocks: At least one.
        tests: The code that will use it.
    """
    if len(blocks) == 1:
        return blocks[0]
    sound = [block for block in blocks if compiles(block)]
    if len(sound) < len(blocks):
        whole = joined(blocks)
        if not sound or compiles(whole):
            return whole
    if len(sound) > MAX_COMPARED:
        return joined(sound)
    kept = [(block, names(block)) for block in sound]
    known = [(block, each) for block, each in kept if each is not None]
    if len(known) < len(kept):
        return joined(sound)
    needed = _without_demonstrations(known, names(tests))
    return joined([block for block, _ in _without_drafts(needed)])


def tests_program(blocks: Sequence[str]) -> str:
    """The program that the blocks of the tests make. There is at least one."""
    if len(blocks) == 1:
        return blocks[0]
    whole = joined(blocks)
    if compiles(whole):
        return whole
    return joined([block for block in blocks if "assert" in block.lower() or compiles(block)] or blocks)


def joined(blocks: Sequence[str]) -> str:
    """The blocks as one text, a blank line between them. One is itself."""
    if len(blocks) == 1:
        return blocks[0]
    head = ""
    parts = [_ended(blocks[0])]
    for block in blocks[1:]:
        futures, rest = _without_futures(block.removeprefix(BOM))
        head += "".join(f"{line}\n" for line in futures)
        parts.append(_ended(rest))
    mark = BOM if head and parts[0].startswith(BOM) else ""
    return mark + head + "\n".join([parts[0].removeprefix(mark), *parts[1:]])


def _ended(block: str) -> str:
    return block if block.endswith(("\n", "\r")) else f"{block}\n"


def _without_demonstrations(blocks: Sequence[tuple[str, Names]], tests: Names | None) -> Sequence[tuple[str, Names]]:
    """The blocks whose names the tests need, and those that change something of others."""
    if tests is None or tests.reaches_anything(tests=True):
        return blocks
    wanted = set(tests.taken | tests.mentioned - tests.given)
    relevant = SETTINGS | {""}
    kept: set[int] = set()
    while fresh := [
        number
        for number, (_, own) in enumerate(blocks)
        if number not in kept and not (own.given.isdisjoint(wanted) and (not kept or own.acted_on.isdisjoint(relevant)))
    ]:
        kept.update(fresh)
        for _, own in (blocks[number] for number in fresh):
            if own.reaches_anything():
                return blocks
            wanted |= own.taken
            relevant |= own.taken | own.given
    return [each for number, each in enumerate(blocks) if number in kept] or blocks


def _without_drafts(blocks: Sequence[tuple[str, Names]]) -> list[tuple[str, Names]]:
    """The blocks that no later one replaces."""
    return [
        each
        for number, each in enumerate(blocks)
        if not any(_replaces(later, each[1]) for _, later in blocks[number + 1 :])
    ]


def _replaces(later: Names, draft: Names) -> bool:
    return bool(draft.defined & later.defined) and draft.given <= later.given and later.taken.isdisjoint(draft.given)


def _without_futures(block: str) -> tuple[list[str], str]:
    """The block's `from __future__` statements, and the block with `pass` in their places."""
    with without_warnings():
        try:
            tree = ast.parse(block)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return [], block
    found = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    futures = [ast.unparse(node) for node in found]
    if not found:
        return [], block
    starts = [0, *accumulate(map(len, lines(block, keepends=True)))]
    parts, at = [], 0
    for node in found:
        parts += [block[at : _offset(block, starts, node.lineno, node.col_offset)], "pass"]
        at = _offset(block, starts, node.end_lineno, node.end_col_offset)
    return futures, "".join([*parts, block[at:]])


def _offset(code: str, starts: Sequence[int], line: int | None, column: int | None) -> int:
    """The place of a position that `ast` gives: a line from 1 on, and a column in bytes of UTF-8.

    Args:
        code: The code.
        starts: Where each line begins.
        line: The line's number.
        column: The column.
    """
    assert line is not None
    assert column is not None
    start = starts[line - 1]
    # No more characters than bytes: a line may hold thousands of statements.
    return start + len(code[start : start + column].encode()[:column].decode())
