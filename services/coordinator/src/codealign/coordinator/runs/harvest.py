"""What a piece of a run's work gave: groups of candidates and, for a run with a target, what it cost."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.stage import Item
from codealign.coordinator.rules.duplicates import Row
from codealign.coordinator.runs.groups import Candidate, Group

_CHARS_PER_TOKEN = 4
"""Estimate for completions whose engine counted nothing."""


class Spending:
    """Tokens of an action, counted so that every execution counts the same, whatever was in an engine's cache.

    An item's prompt is counted once, without its prefix; prefixes are counted once per run.
    """

    def __init__(self) -> None:
        self._prompts: dict[tuple[str, str], int] = {}
        """Tokens of the prompts without their prefixes, by stage and item."""
        self._generated: dict[str, int] = {}
        """Generated tokens by stage."""
        self._prefixes: dict[str, int] = {}
        """Tokens of the prefixes by id."""

    def add(self, stage: str, item_key: str, prefix_id: str, prefix_chars: int, completion: pb.Record) -> None:
        """Count a completion.

        Args:
            stage: The stage that it was drawn for.
            item_key: Key of the item that the prompt is about.
            prefix_id: Id of the prompt's prefix.
            prefix_chars: Length of the prefix.
            completion: The completion's record.
        """
        made, body = completion.provenance, completion.completion
        chars = prefix_chars + len(body.prompt_suffix)
        prompt = made.prompt_tokens or _tokens(chars)
        prefix = prompt * prefix_chars // max(1, chars)
        # Engines count whole prompts, so the split of one prefix differs by a token or two: keep the least.
        self._prefixes[prefix_id] = min(prefix, self._prefixes.get(prefix_id, prefix))
        self._prompts[stage, item_key] = prompt - prefix
        self._generated[stage] = self._generated.get(stage, 0) + (made.generated_tokens or _tokens(len(body.text)))

    def total(self, known: MutableMapping[str, int]) -> int:
        """Return all tokens, with those of prefixes that are not known yet, which become known."""
        fresh = {prefix_id: tokens for prefix_id, tokens in self._prefixes.items() if prefix_id not in known}
        known.update(fresh)
        return sum(self._prompts.values()) + sum(self._generated.values()) + sum(fresh.values())

    def of(self, stage: str) -> int:
        """Return the tokens of one stage, without prefixes."""
        prompts = sum(tokens for (name, _), tokens in self._prompts.items() if name == stage)
        return prompts + self._generated.get(stage, 0)


def _tokens(chars: int) -> int:
    return -(-chars // _CHARS_PER_TOKEN)


@dataclass
class Measured:
    """What an action of a run with a target gave besides groups."""

    spent: Spending = field(default_factory=Spending)
    compared: dict[bytes, Row] = field(default_factory=dict)
    """What de-duplication compares of each eligible candidate, by the candidate's id. Missing: reading it failed."""


@dataclass(frozen=True)
class Attempt:
    """A response that could be read and was executed."""

    item: Item
    verdict: pb.Record
    candidate: Candidate
    eligible: bool
    """Whether it may become a row."""


@dataclass
class Harvest:
    """The groups of candidates that a piece of work gave."""

    groups: list[Group] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    """Responses of a strategy that compares them."""
    measured: Measured | None = None
    """None: the run has no target."""
