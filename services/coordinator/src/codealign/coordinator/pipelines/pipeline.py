"""A pipeline: a tree of stages under a name. Each is a folder beside this file, found by its `PIPELINE`."""

from __future__ import annotations

from dataclasses import dataclass

from codealign.coordinator.pipelines.few_shots import FewShotSets
from codealign.coordinator.pipelines.stage import Execution, Seeds, Selection, Stage, Writing


@dataclass(frozen=True)
class Pipeline:
    """A tree of stages.

    Raises:
        ConfigurationError: On construction, where the stages are no such tree: names every mistake.
    """

    name: str
    """"selfcodealign": lower case, with hyphens."""
    description: str
    """A line for a person."""
    stages: tuple[Stage, ...]
    """Parents first: seeds, then writing stages, then execution (or none), then selection."""
    few_shots: FewShotSets
    """The sets that its stages may have, the default first."""
    templates_sha256: str
    """A hash of the prompts' text: part of what every draw depends on."""

    @property
    def seeds(self) -> Seeds:
        """The root."""
        raise NotImplementedError

    @property
    def writing(self) -> tuple[Writing, ...]:
        """The stages that a model writes, parents first."""
        raise NotImplementedError

    @property
    def execution(self) -> Execution | None:
        """The stage that judges; None: the pipeline executes nothing, and its rows say so."""
        raise NotImplementedError

    @property
    def selection(self) -> Selection:
        """The last stage."""
        raise NotImplementedError

    @property
    def candidates(self) -> Writing:
        """The writing stage whose items selection chooses among."""
        raise NotImplementedError

    def children(self, stage: Stage) -> tuple[Writing, ...]:
        """The writing stages whose parent is this one."""
        raise NotImplementedError
