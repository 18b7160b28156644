"""The request of a writing stage about an item: the prompt, its samples, and the ids of all possible results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common import records
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.stage import Asked, Item, Writing
from codealign.coordinator.runs.config import draws_id, model_of
from codealign.coordinator.runs.context import Context
from codealign.coordinator.runs.harvest import Spending
from codealign.coordinator.runs.prompting import (
    asked_about,
    child_key,
    number_key,
    prefix_group,
    sample_seed,
    shots,
)

_GROUPS = 256
"""Maximum prefix groups per stage whose prompts are kept in memory."""


@dataclass(frozen=True)
class Draw:
    """One sample of an item."""

    attempt: int
    seed: int
    completion: str
    """Id of the completion record."""


@dataclass(frozen=True)
class Fate:
    """Ids of all possible earlier results of a draw."""

    child: str
    unreadable: str
    refused: str


@dataclass(frozen=True)
class _Shared:
    """What the prompts of a prefix group share."""

    shots: Sequence[FewShot]
    prefix: str
    prefix_id: str


@dataclass(frozen=True)
class Question:
    """The prompt about one item and the data it was made from."""

    item: Item
    asked: Asked
    shared: _Shared
    suffix: str
    spent: Spending | None = None
    """Counts the tokens of its completions. None: nobody asks."""


class Asking:
    """Prompts, samples and ids of one writing stage of a run.

    Args:
        context: The run.
        stage: The stage.
    """

    def __init__(self, context: Context, stage: Writing) -> None:
        self._context, self._stage = context, stage
        self._settings = context.settings.of(stage.name)
        self._model = model_of(context.run, stage.name)
        self._config_id = context.configs[stage.name].id
        self._sampling_id = context.configs.sampling(stage.name).id
        self._draws_id = draws_id(context.run, stage.name)
        self._shared = lru_cache(_GROUPS)(self._shared_of_group)

    def key(self, parent_key: str, attempt: int, number: int = 0) -> str:
        """Return a child's key."""
        return child_key(self._stage, self._draws_id, parent_key, attempt, number)

    def question(self, item: Item) -> Question:
        """Return the question about an item of the parent stage."""
        settings = self._context.settings
        shared = self._shared(prefix_group(settings, self._stage, item.key))
        asked = asked_about(settings, self._stage, item.key, shared.shots)
        return Question(item, asked, shared, self._stage.suffix(item, asked))

    def _shared_of_group(self, group: str) -> _Shared:
        found = shots(self._context.pipeline, self._context.settings, self._stage, group)
        text = self._stage.prefix(found)
        record = pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix(text=text))
        return _Shared(found, text, records.record_id(record))

    def draw(self, question: Question, attempt: int) -> Draw:
        """Return one sample of a question."""
        item, run = question.item, self._context.run
        seed = sample_seed(run.seed, self._stage.name, self._draws_id, item.key, attempt)
        completion = records.derive_id(
            pb.KIND_COMPLETION,
            [question.shared.prefix_id],
            stage_config_id=self._sampling_id,
            key=completion_key(question.suffix, seed),
        )
        return Draw(attempt, seed, completion)

    def fate(self, item: Item, draw: Draw) -> Fate:
        """Return the ids of a draw's possible earlier results."""
        return Fate(
            child=self.child_id(item, draw.completion, draw.attempt),
            unreadable=self._id(pb.KIND_REJECTION, [item.record.id, draw.completion], draw.attempt),
            refused=self._id(pb.KIND_REJECTION, [item.record.id], draw.attempt),
        )

    def child_id(self, item: Item, completion: str, attempt: int, number: int = 0) -> str:
        """Return the id of a record that is parsed from a completion."""
        return self._id(self._stage.makes, [item.record.id, completion], attempt, number_key(number))

    def _id(self, kind: pb.Kind.ValueType, parents: list[str], attempt: int, key: str = "") -> str:
        return records.derive_id(kind, parents, attempt=attempt, stage_config_id=self._config_id, key=key)

    def request(self, question: Question, draws: Iterable[Draw]) -> inf.GenerateRequest:
        """Return the inference request for samples of a question."""
        settings = self._settings
        return inf.GenerateRequest(
            model=self._model.model,
            expected_revision=self._model.revision,
            prompt=question.shared.prefix + question.suffix,
            samples=[inf.Sample(attempt=draw.attempt, seed=draw.seed) for draw in draws],
            sampling=inf.SamplingParameters(
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=settings.max_tokens,
                stop=self._stage.section.stop(settings.few_shots),
            ),
            prefix_key=question.shared.prefix_id,
            prefix_chars=len(question.shared.prefix),
        )


def completion_key(suffix: str, seed: int) -> str:
    """Return the key that distinguishes completions with the same prefix and sampling: prompt suffix and seed."""
    return f"{hashlib.sha256(suffix.encode()).hexdigest()}/{seed}"
