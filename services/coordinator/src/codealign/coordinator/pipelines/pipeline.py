"""A pipeline: a tree of stages under a name. Each is a folder beside this file, found by its `PIPELINE`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from codealign.common.errors import ConfigurationError
from codealign.coordinator.pipelines.few_shots import FewShotSets
from codealign.coordinator.pipelines.stage import Execution, Seeds, Selection, Stage, Writing
from codealign.coordinator.rules import version

RESERVED = frozenset({"run", "sampling", "seed-rules", "row-rules", "training", "evaluation"})
"""Names of other configurations than a stage's (StageConfig.name)."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Pipeline:
    """A tree of stages.

    Raises:
        ConfigurationError: On construction, where the stages are no such tree or a few-shot set cannot be read. Names
            every mistake.
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

    def __post_init__(self) -> None:
        """Check the tree."""
        self.check()

    def check(self) -> None:
        """Check the tree.

        Raises:
            ConfigurationError: Names every mistake.
        """
        if wrong := [*_mistakes(self.name, self.stages), *self.few_shots.mistakes()]:
            raise ConfigurationError(f"pipeline {self.name!r}: {'; '.join(wrong)}")

    @property
    def seeds(self) -> Seeds:
        """The root."""
        return next(stage for stage in self.stages if isinstance(stage, Seeds))

    @property
    def writing(self) -> tuple[Writing, ...]:
        """The stages that a model writes, parents first."""
        return tuple(stage for stage in self.stages if isinstance(stage, Writing))

    @property
    def execution(self) -> Execution | None:
        """The stage that judges; None: the pipeline executes nothing, and its rows say so."""
        return next((stage for stage in self.stages if isinstance(stage, Execution)), None)

    @property
    def selection(self) -> Selection:
        """The last stage."""
        return next(stage for stage in self.stages if isinstance(stage, Selection))

    @property
    def candidates(self) -> Writing:
        """The writing stage whose items selection chooses among."""
        parent = (self.execution or self.selection).parent
        return next(stage for stage in self.writing if stage.name == parent)

    @property
    def rules_version(self) -> int:
        """Goes up whenever seeds, verdicts or rows come to be decided otherwise."""
        return version.VERSION + sum(stage.VERSION for stage in self.stages if not isinstance(stage, Writing))

    def children(self, stage: Stage) -> tuple[Writing, ...]:
        """The writing stages whose parent is this one."""
        return tuple(child for child in self.writing if child.parent == stage.name)

    def stage(self, name: str) -> Stage:
        """The stage of a name.

        Raises:
            KeyError: There is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


def _mistakes(pipeline: str, stages: tuple[Stage, ...]) -> Iterator[str]:
    yield from _wrong_names(pipeline, stages)
    yield from _wrong_numbers(stages)
    yield from _wrong_parents(stages)
    yield from _wrong_ends(stages)


def _wrong_names(pipeline: str, stages: tuple[Stage, ...]) -> Iterator[str]:
    if not _NAME.fullmatch(pipeline):
        yield "its name must be lower-case words with hyphens between them"
    for name, count in Counter(stage.name for stage in stages).items():
        if count > 1:
            yield f"{count} stages are named {name!r}"
        if not _NAME.fullmatch(name):
            yield f"stage {name!r}: a name must be lower-case words with hyphens between them"
        if name in RESERVED:
            yield f"stage {name!r}: this name is reserved for another configuration"


def _wrong_numbers(stages: tuple[Stage, ...]) -> Iterator[str]:
    for kind, least, most in ((Seeds, 1, 1), (Writing, 1, len(stages)), (Execution, 0, 1), (Selection, 1, 1)):
        found = [stage.name for stage in stages if isinstance(stage, kind)]
        if len(found) < least:
            yield f"it has no {kind.__name__} stage"
        elif len(found) > most:
            yield f"it has {len(found)} {kind.__name__} stages ({', '.join(found)}), {most} at most"
    if stages and not isinstance(stages[-1], Selection):
        yield f"its last stage must be a Selection, not {stages[-1].name!r}"


def _wrong_parents(stages: tuple[Stage, ...]) -> Iterator[str]:
    by_name = {stage.name: stage for stage in stages}
    allowed: dict[type[Stage], tuple[type[Stage], ...]] = {
        Writing: (Seeds, Writing),
        Execution: (Writing,),
        Selection: (Writing, Execution),
    }
    circles = {frozenset(circle): circle for circle in (_circle(stage, by_name) for stage in stages) if circle}
    for circle in circles.values():
        yield f"a cycle: {' → '.join([*circle, circle[0]])}"
    seen: set[str] = set()
    for stage in stages:
        seen.add(stage.name)
        if isinstance(stage, Seeds):
            if stage.parent:
                yield f"stage {stage.name!r}: seeds are the root and have no parent, but it names {stage.parent!r}"
            continue
        parent = by_name.get(stage.parent)
        role = next(base for base in allowed if isinstance(stage, base))
        if parent is None:
            yield f"stage {stage.name!r}: there is no stage {stage.parent!r} to be its parent"
        elif not isinstance(parent, allowed[role]):
            kinds = " or ".join(base.__name__ for base in allowed[role])
            yield f"stage {stage.name!r}: its parent must be a {kinds} stage, which {stage.parent!r} is not"
        elif parent.name not in seen and not any(stage.name in circle for circle in circles):
            yield f"stage {stage.name!r}: it stands before its parent {stage.parent!r}"


def _circle(stage: Stage, by_name: dict[str, Stage]) -> tuple[str, ...]:
    """The names on the cycle that the stage is on, or nothing."""
    names, at = [stage.name], by_name.get(stage.parent)
    while at is not None and at.name not in names:
        names.append(at.name)
        at = by_name.get(at.parent)
    return tuple(reversed(names)) if at is not None and at.name == stage.name else ()


def _wrong_ends(stages: tuple[Stage, ...]) -> Iterator[str]:
    parents = {stage.name: stage.parent for stage in stages}
    line = _ancestors(parents, (stage.name for stage in stages if isinstance(stage, Selection)))
    for stage in stages:
        if isinstance(stage, Writing | Execution) and stage.name not in line:
            yield f"stage {stage.name!r} leads nowhere: no selection chooses among what comes of it"


def _ancestors(parents: dict[str, str], names: Iterable[str]) -> set[str]:
    """The names and all above them."""
    found: set[str] = set()
    for name in names:
        while name in parents and name not in found:
            found.add(name)
            name = parents[name]
    return found
