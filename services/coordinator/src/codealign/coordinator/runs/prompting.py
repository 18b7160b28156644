"""The prompt of a writing stage for an item, and everything random about it.

Everything derives from the item's key and from what the stage's draws depend on (decision 013). The same items
therefore get the same prompts and samples, however completions are parsed later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.prompt import Prompt
from codealign.coordinator.pipelines.stage import Asked, Item, Settings, Writing


class Question(NamedTuple):
    """The prompt of a writing stage for an item."""

    asked: Asked
    prompt: Prompt
    group: str
    """Prefix group; items in the same group share the prompt's prefix."""


def prompt_of(pipeline: Pipeline, settings: Settings, stage: Writing, item: Item) -> Question:
    """Return a stage's prompt for an item of its parent stage."""
    group = prefix_group(settings, stage, item.key)
    found = shots(pipeline, settings, stage, group)
    asked = asked_about(settings, stage, item.key, found)
    return Question(asked, Prompt(stage.prefix(found), stage.suffix(item, asked)), group)


def asked_about(settings: Settings, stage: Writing, key: str, found: Sequence[FewShot]) -> Asked:
    """Return what a prompt contains besides the item: few-shot examples, and all that is drawn from the item's key."""
    return Asked(found, drawn_properties(settings, stage, key), settings.number(key))


def prefix_group(settings: Settings, stage: Writing, key: str) -> str:
    """Return the prefix group of an item, derived from the item's key."""
    own = settings.of(stage.name)
    if own.unpooled:
        return key
    return str(records.seed_for(settings.run.seed, stage.name, "group", key) % own.prefix_groups)


def shots(pipeline: Pipeline, settings: Settings, stage: Writing, group: str) -> tuple[FewShot, ...]:
    """Return the few-shot examples of a prefix group."""
    run, count = settings.run, settings.of(stage.name).few_shots
    difficulties = stage.preferred_difficulties(settings)
    return tuple(pipeline.few_shots.ordering(run.few_shot_set, run.seed, stage.name, group, count, difficulties))


def drawn_properties(settings: Settings, stage: Writing, key: str) -> Mapping[str, str]:
    """Draw the properties requested for an item, each value with equal probability.

    One number is drawn from the item's key; its digits, in a mixed radix, are the values' indices.
    """
    number = records.seed_for(settings.run.seed, "property", key)
    drawn: dict[str, str] = {}
    for draw in settings.of(stage.name).properties:
        number, digit = divmod(number, len(draw.values))
        drawn[draw.name] = draw.values[digit]
    return drawn


def child_key(stage: Writing, draws_id: str, parent_key: str, attempt: int, index: int = 0) -> str:
    """Return the key that everything random about a child derives from. A seed's key is its id.

    Args:
        stage: The stage that creates the child.
        draws_id: Hash of what the stage's draws depend on (`config.draws_id`).
        parent_key: The parent's key.
        attempt: Number of the draw.
        index: Position of the child among the records parsed from one completion.
    """
    return records.derive_id(
        stage.makes, [parent_key], attempt=attempt, stage_config_id=draws_id, key=number_key(index)
    )


def number_key(number: int) -> str:
    """Return the key that distinguishes records parsed from the same completion."""
    return str(number) if number else ""


def sample_seed(run_seed: int, stage_name: str, draws_id: str, parent_key: str, attempt: int) -> int:
    """Return the seed of a sample, 63 bits."""
    return records.seed_for(run_seed, stage_name, draws_id, parent_key, attempt)


def pass_rank(run: pb.Run, child: str) -> int:
    """Return a candidate's rank in the random order of the strategy "random-pass".

    Args:
        run: The run.
        child: The candidate's key.
    """
    return records.seed_for(run.seed, "pass", child)
