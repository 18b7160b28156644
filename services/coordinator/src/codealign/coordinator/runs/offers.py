"""De-duplication of candidates, which are offered one after another in a fixed order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.rules.duplicates import Row, RowDuplicates
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.runs.strategies import STRATEGIES

_SPACE = re.compile(r"\s+")


class Offers:
    """The rows kept so far.

    Args:
        settings: The run's settings of the selection.
        rules: Rules for duplicates that apply.
    """

    def __init__(self, settings: pb.SelectionSettings, rules: Sequence[str]) -> None:
        self._duplicates = RowDuplicates(settings.near_duplicate_threshold, settings.near_duplicates, rules)
        self._several = STRATEGIES[settings.strategy].several
        self._siblings: dict[str, dict[str, Row]] = {}
        """Rows of recent groups by their texts, for a strategy that takes several rows per group."""

    def offer(self, row: Row, group: str) -> Drop | None:
        """Return the rule that drops a row of a group as a duplicate, or remember the row and return None."""
        if not self._several:
            return self._duplicates.offer(row)
        # Rows of one group share the instruction and the names it asks for, which does not make them duplicates. An
        # equal response does.
        siblings, text = self._siblings.setdefault(group, {}), _SPACE.sub("", row.response)
        if text in siblings:
            return Drop("dedup.response", "equal, white space aside", siblings[text].id)
        drop = self._duplicates.offer(row)
        if drop is not None and drop.duplicate_of not in {sibling.id for sibling in siblings.values()}:
            return drop
        siblings[text] = row
        return None

    def forget(self, record_id: str) -> None:
        """Forget a row that the store refused, so that nothing is a duplicate of it."""
        self._duplicates.forget(record_id)
        for siblings in self._siblings.values():
            if lost := [text for text, row in siblings.items() if row.id == record_id]:
                del siblings[lost[0]]
                for (
                    row
                ) in siblings.values():  # kept since they were its siblings: now other groups are compared to them
                    self._duplicates.offer(row)

    def leave(self, group: str) -> None:
        """Forget the siblings of all groups but this one."""
        self._siblings = {group: self._siblings[group]} if group in self._siblings else {}
