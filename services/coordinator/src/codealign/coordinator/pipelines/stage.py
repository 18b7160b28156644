"""Stages: one class per module, with everything that is specific to the stage.

A pipeline is a tree of stages. `Seeds` is the root; each `Writing` stage lets a model write about the items of its
parent stage and parses records from the completions; `Execution` judges the items of a writing stage; `Selection`
chooses rows among them. Stages are pure: they use neither the store nor a service. The runner (`runs.runner`) walks any
such tree, and draws, looks up, appends, counts and retries for all of them in the same way.

A stage's VERSION is incremented whenever the stage parses or judges differently. It is part of the stage's
configuration, so records of the older version are not taken for those of the newer one; completions are reused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.reading import sections
from codealign.coordinator.reading.parsing import REASONS, Rejected
from codealign.coordinator.reading.section import Section
from codealign.coordinator.rules import duplicates
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import Row
from codealign.coordinator.rules.seeds import Drop


@dataclass(frozen=True)
class Item:
    """A record on its way through a pipeline."""

    record: pb.Record
    key: str
    """Key that everything random about its children derives from (decision 013). A seed's key is its id."""
    line: Mapping[str, pb.Record] = field(default_factory=dict)
    """Records that it derives from by stage name: the seed's first, its own last."""
    text: str = ""
    """For an item parsed from a completion: the section as the model wrote it. Passed to rules; empty when rows are
    compared and built."""


@dataclass(frozen=True)
class Settings:
    """A run's settings as its stages see them."""

    run: pb.Run
    """The run with every default filled in."""

    def of(self, stage: str) -> pb.StageSettings:
        """Return the settings of a writing stage.

        Raises:
            KeyError: The run has no settings for it.
        """
        for settings in self.run.stages:
            if settings.stage == stage:
                return settings
        raise KeyError(stage)

    def number(self, key: str) -> int:
        """Return the number drawn for an item (`Asked.number`)."""
        return records.seed_for(self.run.seed, "number", key)

    def property_values(self, stage: str, name: str) -> list[str]:
        """Return the values that a stage draws a property from; empty if it does not draw this property."""
        return next((list(draw.values) for draw in self.of(stage).properties if draw.name == name), [])

    def drawn_from(self, name: str) -> list[str]:
        """Return the values that a property is drawn from by the first stage that draws it; empty if none does."""
        draws = (draw for stage in self.run.stages for draw in stage.properties)
        return next((list(draw.values) for draw in draws if draw.name == name), [])


@dataclass(frozen=True)
class Asked:
    """What a writing stage's prompt contains besides the item."""

    shots: Sequence[FewShot]
    """Few-shot examples of the prompt, in order."""
    properties: Mapping[str, str]
    """Properties drawn for this item."""
    number: int = 0
    """Number drawn for this item, 63 bits. Whatever else a stage draws derives from it."""


READING_REASONS: Mapping[str, str] = {
    reason: REASONS[reason]
    for reason in (
        "cut-off",
        "cut-by-stop",
        "content-filter",
        "tool-call",
        "empty",
        "prompt-too-long",
        "prompt-refused",
    )
}
"""Reasons for which any writing stage may have nothing to parse."""
NOT_CHOSEN = "selection.another-pass-was-chosen"
"""Rule for a candidate that met every rule although another one of its group became the row."""
CONTESTED = "selection.attempts-contradict"
"""Rule for a candidate whose instruction's attempts contradict each other so much that none is likely right."""
CONTRADICTED = "selection.other-attempts-agree"
"""Rule for a candidate that does something else than the attempts which agree with each other."""
TARGET_REACHED = "selection.target-reached"
"""Rule for a candidate that was still being drawn when the run had as many rows as wanted."""


class Stage(ABC):
    """A stage of a pipeline. Subclass one of the four below."""

    name: str
    """Name in StageSettings, progress and reports: a lower-case plural."""
    parent: str
    """Name of the stage whose items it processes. Empty: the root."""
    title: str
    """Heading, such as "Seed → concepts"."""
    description: str
    """One-sentence description for users."""
    makes: ClassVar[pb.Kind.ValueType]
    VERSION: ClassVar[int]
    """Counted from 1."""
    reasons: ClassVar[Mapping[str, str]]
    """Reasons for dropping an item and their meanings. The runner adds "internal-error"."""

    def __init__(self, parent: str = "") -> None:
        """Place the stage below its own parent, or below another one with items of the same kind."""
        if parent:
            self.parent = parent


class Seeds(Stage):
    """Selects from the records of the run's collection, which are offered in the order of their ids."""

    parent = ""
    threshold: ClassVar[float | None]
    """Jaccard similarity at which two seeds are near duplicates. None: they are not compared."""
    ancestors: ClassVar[Mapping[pb.Kind.ValueType, str]] = {}
    """Names on an item's line of the records that the collection's records derive from, by kind. Empty: they are roots,
    or what they derive from does not matter."""
    plural: ClassVar[str] = "seeds"
    """What the records are called in messages."""
    advice: ClassVar[str] = "collect some with `codealign seeds collect PATH`"
    """What to do if a collection has none."""

    @abstractmethod
    def drop(self, record: pb.Record, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        """Return the first rule that drops a record, except for near duplicates, or None."""

    def rule_settings(self, settings: Settings) -> Mapping[str, object]:  # noqa: ARG002 (for subclasses)
        """Return what its rules depend on besides the benchmarks' texts and how near duplicates are detected."""
        return {}

    @abstractmethod
    def text(self, record: pb.Record) -> str:
        """Return the text by which near duplicates are detected."""


class Writing(Stage):
    """A model writes about an item, and records are parsed from the completion."""

    section: ClassVar[Section]
    """The part of the prompt's last example that the model writes."""
    defaults: ClassVar[pb.StageSettings]
    """Defaults for what a run's settings leave out: at least max_tokens, few_shots and attempts."""
    properties: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Properties drawn for each item, each with all its possible values."""

    @property
    def reading_version(self) -> int:
        """Version that increases whenever completions are parsed differently, by this stage or by all."""
        return sections.READING + self.VERSION

    @abstractmethod
    def prefix(self, shots: Sequence[FewShot]) -> str:
        """Return the part of the prompt that all items with the same few-shot examples share."""

    @abstractmethod
    def suffix(self, item: Item, asked: Asked) -> str:
        """Return the rest of the prompt: the item, up to where the model continues."""

    @abstractmethod
    def parse(self, text: str, item: Item, asked: Asked) -> Sequence[Message] | Rejected:
        """Return the bodies of the records (of kind `makes`) in a complete section, at least one, or why there is none.

        Args:
            text: The section as the model wrote it.
            item: The item that the prompt was about.
            asked: What else the prompt contained.
        """

    def drop(
        self,
        item: Item,  # noqa: ARG002 (for subclasses)
        settings: Settings,  # noqa: ARG002
        benchmarks: BenchmarkTexts,  # noqa: ARG002
    ) -> Drop | None:
        """Return the first rule that drops a parsed item, or None. `item.record` is a record of this stage."""
        return None

    def draw_settings(self, settings: Settings) -> Mapping[str, object]:
        """Return what its draws depend on besides model, templates, few-shot examples, sampling and the run's seed."""
        return {name: settings.property_values(self.name, name) for name in self.properties}

    def preferred_difficulties(self, settings: Settings) -> Collection[str]:  # noqa: ARG002 (for subclasses)
        """Return the difficulties of the few-shot examples that come first. Empty: no preference."""
        return ()


class Execution(Stage):
    """The sandbox executes and judges the items of a writing stage."""

    makes = pb.KIND_VERDICT

    @abstractmethod
    def program(self, item: Item) -> sb.Program:
        """Return the program to execute."""


class Selection(Stage):
    """Selects the rows, normally one for each group of candidates with the same parent.

    Candidates are the items of the last writing stage on its line, with their verdicts if there is an execution stage
    in between. Without a writing stage, they are the records of the collection, each in a group of its own.
    """

    makes = pb.KIND_EXAMPLE
    defaults: ClassVar[pb.SelectionSettings] = pb.SelectionSettings()
    """The pipeline's own defaults for what a run's selection leaves out."""
    duplicate_rules: ClassVar[Sequence[str]] = tuple(duplicates.RULES)
    """Rules for duplicates that apply, from `duplicates.ALL_RULES`."""

    @abstractmethod
    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        """Return the first rule that drops a candidate, except for duplicates, or None."""

    @abstractmethod
    def compared(self, item: Item, settings: Settings) -> Row:
        """Return the parts of a candidate that are compared with the kept rows."""

    @abstractmethod
    def example(self, item: Item, settings: Settings, parent_key: str) -> pb.Example:
        """Return the row of a candidate; the runner adds lineage, verdict and model revision.

        Args:
            item: The candidate with its line.
            settings: The run's settings.
            parent_key: Key of the candidate's parent, or its own if it is a record of the collection. Everything random
                about the row derives from it, so that it does not depend on which candidate was chosen.
        """
