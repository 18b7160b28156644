"""Duplicates among rows and among seeds: exact ones, equal sets of names, and near ones by MinHash.

Everything is decided in the order in which items are offered, so a caller who offers them in a fixed order gets
the same result each time.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass

from rensa import RMinHash, RMinHashLSH

from codealign.coordinator.rules.seeds import Drop

PERMUTATIONS = 250
SHINGLE_WORDS = 5
SEED_THRESHOLD = 0.5
"""Jaccard similarity at which two seeds are near duplicates (the paper's)."""
RULES = (
    "dedup.instruction",
    "dedup.response",
    "dedup.function-names",
    "dedup.class-names",
    "dedup.near-instruction",
    "dedup.near-response",
    "dedup.near-code",
)
"""The rules for rows, in the order of their application."""
_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"\s+")
_HASH_SEED = 1
# Bands for the LSH: many narrow ones find all candidates, whose similarity is then estimated in full.
_BANDS = 50


class NearDuplicates:
    """Texts seen so far, and the question whether another is near one of them.

    Args:
        threshold: Jaccard similarity of 5-grams of words at which two texts are near duplicates.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._index = RMinHashLSH(threshold, PERMUTATIONS, _BANDS)
        self._seen: list[tuple[str, RMinHash]] = []

    def find(self, text: str) -> tuple[str, float] | None:
        """The first item that the text is near to, with the estimated similarity, or None."""
        sketch = _sketch(text)
        for number in sorted(self._index.query(sketch)):
            owner, other = self._seen[number]
            similarity = float(sketch.jaccard(other))
            if similarity >= self._threshold:
                return owner, similarity
        return None

    def add(self, owner: str, text: str) -> None:
        """Remember a text under its owner's id."""
        sketch = _sketch(text)
        self._index.insert(len(self._seen), sketch)
        self._seen.append((owner, sketch))


@dataclass(frozen=True)
class Row:
    """What of a row is compared."""

    id: str
    instruction: str
    response: str
    code: str


class RowDuplicates:
    """The rows that were kept so far; `offer` keeps another, or says which rule drops it."""

    def __init__(self, threshold: float) -> None:
        self._exact: dict[str, dict[str, str]] = {rule: {} for rule in RULES[:4]}
        self._near = {rule: NearDuplicates(threshold) for rule in RULES[4:]}

    def offer(self, row: Row) -> Drop | None:
        """Keep the row and return None, or return the first rule that drops it."""
        keys = {
            "dedup.instruction": _squeezed(row.instruction),
            "dedup.response": _squeezed(row.response),
            "dedup.function-names": "\0".join(sorted(_names(row.code, ast.FunctionDef, ast.AsyncFunctionDef))),
            "dedup.class-names": "\0".join(sorted(_names(row.code, ast.ClassDef))),
        }
        texts = {
            "dedup.near-instruction": row.instruction,
            "dedup.near-response": row.response,
            "dedup.near-code": bare_code(row.code),
        }
        for rule, key in keys.items():
            if key and (other := self._exact[rule].get(key)):
                what = key.replace("\0", ", ") if rule.endswith("-names") else "equal, white space aside"
                return Drop(rule, what, other)
        for rule, text in texts.items():
            if found := self._near[rule].find(text):
                other, similarity = found
                return Drop(rule, f"estimated similarity {similarity:.2f}", other)
        for rule, key in keys.items():
            if key:
                self._exact[rule][key] = row.id
        for rule, text in texts.items():
            self._near[rule].add(row.id, text)
        return None


def bare_code(code: str) -> str:
    """The code without comments and docstrings."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return code
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _sketch(text: str) -> RMinHash:
    words = _WORD.findall(text)
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    shingles = {" ".join(words[start : start + SHINGLE_WORDS]) for start in range(count)}
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=_HASH_SEED)
    sketch.update(sorted(shingles))
    return sketch


def _squeezed(text: str) -> str:
    return hashlib.sha256(_SPACE.sub("", text).encode()).hexdigest()


def _names(code: str, *kinds: type[ast.AST]) -> set[str]:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return set()
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds) and hasattr(node, "name")}
