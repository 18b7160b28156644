"""What a writing stage asks about an item, and everything random about it.

All of it derives from the item's key and from what the stage's draws depend on (decision 013): however completions come
to be read, the same items get the same prompts and the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.prompt import Prompt
from codealign.coordinator.pipelines.stage import Asked, Item, Settings, Writing


class Question(NamedTuple):
    """What a writing stage asks about an item."""

    asked: Asked
    prompt: Prompt
    group: str
    """The prefix group: items of one share the prompt's prefix."""


def prompt_of(pipeline: Pipeline, settings: Settings, stage: Writing, item: Item) -> Question:
    """What a stage asks about an item of its parent stage."""
    group = prefix_group(settings, stage, item.key)
    found = shots(pipeline, settings, stage, group)
    asked = Asked(found, drawn_properties(settings, stage, item.key))
    return Question(asked, Prompt(stage.prefix(found), stage.suffix(item, asked)), group)


def prefix_group(settings: Settings, stage: Writing, key: str) -> str:
    """The prefix group of an item: it follows from the item's key."""
    own = settings.of(stage.name)
    if own.unpooled:
        return key
    return str(records.seed_for(settings.run.seed, stage.name, "group", key) % own.prefix_groups)


def shots(pipeline: Pipeline, settings: Settings, stage: Writing, group: str) -> tuple[FewShot, ...]:
    """The few-shot examples of a prefix group."""
    run, count = settings.run, settings.of(stage.name).few_shots
    difficulties = stage.preferred_difficulties(settings)
    return tuple(pipeline.few_shots.ordering(run.few_shot_set, run.seed, stage.name, group, count, difficulties))


def drawn_properties(settings: Settings, stage: Writing, key: str) -> Mapping[str, str]:
    """The properties of what is written about an item, each value with equal chance.

    One number is drawn by the item's key; its digits, in a mixed radix, are the values' numbers.
    """
    number = records.seed_for(settings.run.seed, "property", key)
    drawn: dict[str, str] = {}
    for draw in settings.of(stage.name).properties:
        number, digit = divmod(number, len(draw.values))
        drawn[draw.name] = draw.values[digit]
    return drawn


def child_key(stage: Writing, draws_id: str, parent_key: str, attempt: int, index: int = 0) -> str:
    """What everything random about a child derives from. A seed's key is its id.

    Args:
        stage: The stage that makes the child.
        draws_id: What the stage's draws depend on (`config.draws_id`).
        parent_key: The parent's key.
        attempt: The draw's number.
        index: The child's number among those that were read from one completion.
    """
    return records.derive_id(
        stage.makes, [parent_key], attempt=attempt, stage_config_id=draws_id, key=number_key(index)
    )


def number_key(number: int) -> str:
    """What tells a record from others that were read from the same completion."""
    return str(number) if number else ""


def sample_seed(run_seed: int, stage_name: str, draws_id: str, parent_key: str, attempt: int) -> int:
    """The seed of a sample: 63 bits."""
    return records.seed_for(run_seed, stage_name, draws_id, parent_key, attempt)


def pass_rank(run: pb.Run, child: str) -> int:
    """A candidate's place in the random order of the strategy "random-pass".

    Args:
        run: The run.
        child: The candidate's key.
    """
    return records.seed_for(run.seed, "pass", child)
