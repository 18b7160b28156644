"""Duplicates among rows: exact ones, equal sets of names, and near ones.

Decisions depend on the order in which items are offered, so offering them in a fixed order is deterministic.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from codealign.coordinator.rules.near import DEFAULT_STRATEGY, NearDuplicates
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.rules.source import read

SEED_THRESHOLD = 0.5
"""Jaccard similarity at which two seeds are near duplicates (from the paper)."""
INSTRUCTION_THRESHOLD = 0.7
"""The same for two given instructions (as for rows)."""
RULES: Mapping[str, str] = {
    "dedup.instruction": "same instruction as another row",
    "dedup.response": "same response as another row",
    "dedup.code": "same code as another row, layout, comments and names aside",
    "dedup.function-names": "same function names as another row",
    "dedup.class-names": "same class names as another row",
    "dedup.near-instruction": "instruction nearly the same as another's",
    "dedup.near-response": "response nearly the same as another's",
    "dedup.near-code": "code nearly the same as another's",
}
"""The rules for rows and their meanings, in the order of application."""
SNIPPET = "dedup.snippet"
ALL_RULES: Mapping[str, str] = {SNIPPET: "from the same code as another row", **RULES}
"""Also the rules that only some pipelines apply."""
SEED_RULES: Mapping[str, str] = {"seed.near-duplicate": "nearly the same as another seed"}
"""The rule for seeds and its meaning."""
_NEAR = ("dedup.near-instruction", "dedup.near-response", "dedup.near-code")
_SEEN = {
    SNIPPET: "equal, white space aside",
    "dedup.instruction": "equal, white space and case aside",
    "dedup.response": "equal, white space aside",
    "dedup.code": "equal, layout, comments, docstrings and names aside",
}
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Row:
    """The parts of a row that are compared."""

    id: str
    instruction: str
    response: str
    code: str
    snippet: str = ""
    """Code that the row derives from."""


class RowDuplicates:
    """The rows kept so far. `offer` keeps another row or returns the rule that drops it.

    Args:
        threshold: Jaccard similarity at which two texts are near duplicates.
        strategy: How near duplicates are detected, one of `near.STRATEGIES`.
        rules: Names of the rules that apply, from ALL_RULES.
    """

    def __init__(
        self, threshold: float, strategy: str = DEFAULT_STRATEGY, rules: Collection[str] = tuple(RULES)
    ) -> None:
        self._exact: dict[str, dict[bytes, str]] = {rule: {} for rule in rules if rule not in _NEAR}
        self._near = {rule: NearDuplicates(threshold, strategy) for rule in _NEAR if rule in rules}

    def offer(self, row: Row) -> Drop | None:
        """Keep the row and return None, or return the first rule that drops it."""
        source = read(row.code)
        functions, classes = _plain_names(source.functions), _plain_names(source.classes)
        keys = {
            SNIPPET: _SPACE.sub("", row.snippet),
            "dedup.instruction": _SPACE.sub("", row.instruction).casefold(),
            "dedup.response": _SPACE.sub("", row.response),
            "dedup.code": source.key,
            "dedup.function-names": ", ".join(functions),
            "dedup.class-names": ", ".join(classes),
        }
        # Keep the code's own names: words contain no operators, so without names `add` and `subtract` would be equal.
        texts = {
            "dedup.near-instruction": row.instruction,
            "dedup.near-response": row.response,
            "dedup.near-code": source.bare,
        }
        digests = {rule: _digest(key) for rule, key in keys.items() if key and rule in self._exact}
        # Two texts without content, such as two answers without Python code, are not alike.
        texts = {rule: text for rule, text in texts.items() if text.strip() and rule in self._near}
        for rule, digest in digests.items():
            if other := self._exact[rule].get(digest):
                return Drop(rule, _SEEN.get(rule, keys[rule]), other)
        for rule, text in texts.items():
            if found := self._near[rule].find(text):
                other, similarity = found
                self._near[rule].drop(other, text)
                return Drop(rule, f"estimated similarity {similarity:.2f}", other)
        for rule, digest in digests.items():
            self._exact[rule][digest] = row.id
        for rule, text in texts.items():
            self._near[rule].add(row.id, text)
        return None

    def forget(self, row_id: str) -> None:
        """Forget a kept row that does not become one after all. Takes time linear in the number of rows."""
        for rule, owners in self._exact.items():
            self._exact[rule] = {digest: owner for digest, owner in owners.items() if owner != row_id}
        for near in self._near.values():
            near.forget(row_id)


def _plain_names(names: frozenset[str]) -> list[str]:
    """Normalize names so that `is_prime` and `isPrime` are equal; a name of underscores only is kept."""
    return sorted({name.replace("_", "").casefold() or name for name in names})


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
