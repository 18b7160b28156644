"""Assembly of one program from the Python blocks of an answer.

A single block is the program, byte for byte. Several blocks are joined in order, with these rules:

1. *Blocks that do not compile* (a shell transcript, output, a fragment) are left out, unless all blocks together
   compile: then they are pieces of one text.
2. *Demonstrations* are left out: blocks that provide no name that the tests need, directly or through other blocks, and
   that change nothing in other blocks. An example that reads input, fails on purpose or takes long is therefore not
   run. Nothing is left out if the tests reach names without writing them (`eval`, `getattr`, doctest) or need no name
   of any block.
3. *Drafts* are left out: blocks whose names, functions or classes among them, are all provided by a later block that
   does not use the earlier ones.
4. `from __future__` imports of later blocks are moved to the top and replaced by `pass`.

If in doubt, a block is kept. Of the tests, only blocks that do not compile and contain no assertion are left out.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from codealign.coordinator.reading.python_code import BOM, SETTINGS, Names, Offsets, compiles, names, parsed

MAX_COMPARED = 100
"""Maximum blocks that are compared with each other. Answers have a few; beyond that, all that compile are kept."""


def program(blocks: Sequence[str], tests: str) -> str:
    """Return the program assembled from an answer's blocks.

    Args:
        blocks: At least one block.
        tests: The code that will use the program.
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
    """Return the program assembled from the blocks of the tests, of which there is at least one."""
    if len(blocks) == 1:
        return blocks[0]
    whole = joined(blocks)
    if compiles(whole):
        return whole
    return joined([block for block in blocks if "assert" in block.lower() or compiles(block)] or blocks)


def joined(blocks: Sequence[str]) -> str:
    """Join blocks with a blank line between them. A single block is returned unchanged."""
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
    """Return the blocks whose names the tests need, and those that change something in such blocks."""
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
    """Return the blocks that no later block replaces."""
    return [
        each
        for number, each in enumerate(blocks)
        if not any(_replaces(later, each[1]) for _, later in blocks[number + 1 :])
    ]


def _replaces(later: Names, draft: Names) -> bool:
    return bool(draft.defined & later.defined) and draft.given <= later.given and later.taken.isdisjoint(draft.given)


def _without_futures(block: str) -> tuple[list[str], str]:
    """Return the block's `from __future__` statements, and the block with `pass` in their places."""
    tree = parsed(block)
    if tree is None:
        return [], block
    found = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    futures = [ast.unparse(node) for node in found]
    if not found:
        return [], block
    offsets = Offsets(block)
    parts, at = [], 0
    for node in found:
        start, end = offsets.span(node)
        parts += [block[at:start], "pass"]
        at = end
    return futures, "".join([*parts, block[at:]])
