"""What a stage is: one class in one file, with everything that is particular to it.

A pipeline is a tree of stages. `Seeds` is its root; each `Writing` stage lets a model write about the items of its
parent stage and reads records from what it wrote; `Execution` judges the items of a writing stage; `Selection` chooses
rows among them. Stages are pure: they know neither the store nor a service. The runner (`runs.runner`) walks any such
tree, and draws, looks up, appends, counts and retries for all of them alike.

VERSION of a stage goes up whenever it comes to read or judge otherwise. It is part of its configuration, so records of
the older version are not taken for those of the newer one; what the model wrote is found again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.reading import sections
from codealign.coordinator.reading.parsing import REASONS, Rejected
from codealign.coordinator.reading.section import Section
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import Row
from codealign.coordinator.rules.seeds import Drop


@dataclass(frozen=True)
class Item:
    """A record on its way through a pipeline."""

    record: pb.Record
    key: str
    """What everything random about its children derives from (decision 013). A seed's key is its id."""
    line: Mapping[str, pb.Record] = field(default_factory=dict)
    """By stage name, the seed first: the records that it came from, its own last."""
    text: str = ""
    """Of what was read from a completion: the section as the model wrote it. Rules are given it; empty where a row is
    compared and made."""


@dataclass(frozen=True)
class Settings:
    """A run's settings as its stages see them."""

    run: pb.Run
    """With every default filled in."""

    def of(self, stage: str) -> pb.StageSettings:
        """The settings of a writing stage.

        Raises:
            KeyError: The run has none for it.
        """
        for settings in self.run.stages:
            if settings.stage == stage:
                return settings
        raise KeyError(stage)

    def property_values(self, stage: str, name: str) -> list[str]:
        """The values that a stage draws a property from; empty where it draws none of this name."""
        return next((list(draw.values) for draw in self.of(stage).properties if draw.name == name), [])

    def drawn_from(self, name: str) -> list[str]:
        """The values that a property is drawn from, whichever stage draws it first; empty where none does."""
        draws = (draw for stage in self.run.stages for draw in stage.properties)
        return next((list(draw.values) for draw in draws if draw.name == name), [])


@dataclass(frozen=True)
class Asked:
    """What a writing stage was asked, besides the item."""

    shots: Sequence[FewShot]
    """The few-shot examples of the prompt, in their order."""
    properties: Mapping[str, str]
    """The properties that were drawn for this item."""


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
"""Why any writing stage may have nothing to read, whatever it makes."""
NOT_CHOSEN = "selection.another-pass-was-chosen"
"""The rule of a candidate that met every rule, where another one of its group became the row."""


class Stage(ABC):
    """A stage of a pipeline. Subclass one of the four below."""

    name: ClassVar[str]
    """As in StageSettings, progress and reports: a lower-case plural."""
    parent: ClassVar[str]
    """The stage whose items it works on. Empty: the root."""
    title: ClassVar[str]
    """For a heading: "Seed → concepts"."""
    description: ClassVar[str]
    """A sentence for a person."""
    makes: ClassVar[pb.Kind.ValueType]
    VERSION: ClassVar[int]
    """From 1."""
    reasons: ClassVar[Mapping[str, str]]
    """Why it may drop an item, and what each reason means. The runner adds its own ("internal-error")."""


class Seeds(Stage):
    """Chooses among the records of the run's collection; they are offered in the order of their ids."""

    parent = ""
    threshold: ClassVar[float]
    """Jaccard similarity at which two seeds are near duplicates."""

    @abstractmethod
    def drop(self, record: pb.Record, benchmarks: BenchmarkTexts) -> Drop | None:
        """The first rule that drops a record, near duplicates aside, or None."""

    @abstractmethod
    def text(self, record: pb.Record) -> str:
        """What near duplicates are told by."""


class Writing(Stage):
    """A model writes about an item, and records are read from what it wrote."""

    section: ClassVar[Section]
    """The part of the prompt's last example that the model writes."""
    defaults: ClassVar[pb.StageSettings]
    """What a run's settings leave out: at least max_tokens, few_shots and attempts."""
    properties: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The properties that are drawn for each item, each with every value that it may have."""

    @property
    def reading_version(self) -> int:
        """Goes up whenever what the model wrote comes to be read otherwise, by this stage or by all of them."""
        return sections.READING + self.VERSION

    @abstractmethod
    def prefix(self, shots: Sequence[FewShot]) -> str:
        """The part of the prompt that all items with the same few-shot examples share."""

    @abstractmethod
    def suffix(self, item: Item, asked: Asked) -> str:
        """The rest of the prompt: the item, up to where the model goes on."""

    @abstractmethod
    def parse(self, text: str, item: Item, asked: Asked) -> Sequence[Message] | Rejected:
        """The bodies of the records (of kind `makes`) that a whole section holds, one or more; or why there is none.

        Args:
            text: The section as the model wrote it.
            item: What was asked about.
            asked: And how.
        """

    def drop(
        self,
        item: Item,  # noqa: ARG002 (for subclasses)
        settings: Settings,  # noqa: ARG002
        benchmarks: BenchmarkTexts,  # noqa: ARG002
    ) -> Drop | None:
        """The first rule that drops what was read, or None. `item.record` is one of this stage's own records."""
        return None

    def draw_settings(self, settings: Settings) -> Mapping[str, object]:
        """What its draws depend on besides model, templates, few-shot examples, sampling and the run's seed."""
        return {name: settings.property_values(self.name, name) for name in self.properties}

    def preferred_difficulties(self, settings: Settings) -> Collection[str]:  # noqa: ARG002 (for subclasses)
        """Few-shot examples of these difficulties come first. Empty: all are equal."""
        return ()


class Execution(Stage):
    """The sandbox executes and judges the items of a writing stage."""

    makes = pb.KIND_VERDICT

    @abstractmethod
    def program(self, item: Item) -> sb.Program:
        """What is executed."""


class Selection(Stage):
    """Chooses the rows: at most one for each group of candidates that have the same parent.

    Candidates are the items of the last writing stage on its line; with an execution between them, each with its
    verdict.
    """

    makes = pb.KIND_EXAMPLE

    @abstractmethod
    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        """The first rule that keeps a candidate from becoming a row, duplicates aside, or None."""

    @abstractmethod
    def compared(self, item: Item) -> Row:
        """What of a candidate is compared with the rows that were kept."""

    @abstractmethod
    def example(self, item: Item, settings: Settings, parent_key: str) -> pb.Example:
        """The row of a candidate; the runner adds lineage, verdict and model revision.

        Args:
            item: The candidate with its line.
            settings: The run's.
            parent_key: The key of the candidate's parent: what is random about the row derives from it, so that it
                does not depend on which candidate was chosen.
        """
