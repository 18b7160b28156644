"""A pipeline: a named tree of stages. Each is a package beside this module that defines `PIPELINE`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from codealign.common.errors import ConfigurationError
from codealign.coordinator.pipelines.few_shots import NO_FEW_SHOTS, FewShotSets
from codealign.coordinator.pipelines.stage import Execution, Seeds, Selection, Stage, Writing
from codealign.coordinator.rules import version

RESERVED = frozenset({"run", "sampling", "seed-rules", "row-rules", "training", "evaluation"})
"""Names of configurations that do not belong to a stage (StageConfig.name)."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Pipeline:
    """A tree of stages.

    Raises:
        ConfigurationError: On construction, if the stages are not a valid tree or a few-shot set cannot be read. Names
            every mistake.
    """

    name: str
    """Name in lower case with hyphens, such as "selfcodealign"."""
    description: str
    """One-line description for users."""
    stages: tuple[Stage, ...]
    """Parents first: seeds, then writing stages (if any), then execution (if any), then selection."""
    few_shots: FewShotSets = NO_FEW_SHOTS
    """The sets that its writing stages may use, the default first."""
    templates_sha256: str = ""
    """Hash of the prompts' text, which every draw depends on. Empty: no stage writes."""

    def __post_init__(self) -> None:
        """Check the tree."""
        self.check()

    def check(self) -> None:
        """Check the tree.

        Raises:
            ConfigurationError: Names every mistake.
        """
        wrong = [*_mistakes(self.name, self.stages)]
        if self.writing:
            wrong += self.few_shots.mistakes()
        if wrong:
            raise ConfigurationError(f"pipeline {self.name!r}: {'; '.join(wrong)}")

    @property
    def seeds(self) -> Seeds:
        """The root stage."""
        return next(stage for stage in self.stages if isinstance(stage, Seeds))

    @property
    def writing(self) -> tuple[Writing, ...]:
        """The stages whose items a model generates, parents first."""
        return tuple(stage for stage in self.stages if isinstance(stage, Writing))

    @property
    def execution(self) -> Execution | None:
        """The stage that judges, or None if the pipeline executes nothing; its rows are then marked as not executed."""
        return next((stage for stage in self.stages if isinstance(stage, Execution)), None)

    @property
    def selection(self) -> Selection:
        """The last stage."""
        return next(stage for stage in self.stages if isinstance(stage, Selection))

    @property
    def candidates(self) -> Seeds | Writing:
        """The stage whose items selection chooses from: a writing stage, or the root if nothing is written."""
        parent = (self.execution or self.selection).parent
        return next((stage for stage in self.writing if stage.name == parent), self.seeds)

    @property
    def groups(self) -> Seeds | Writing:
        """The stage by whose items candidates are grouped: their parent, or the root if nothing is written."""
        parent = self.candidates.parent
        return next((stage for stage in self.writing if stage.name == parent), self.seeds)

    @property
    def rules_version(self) -> int:
        """Version that increases whenever seeds, verdicts or rows are decided differently."""
        return version.VERSION + sum(stage.VERSION for stage in self.stages if not isinstance(stage, Writing))

    def children(self, stage: Stage) -> tuple[Writing, ...]:
        """Return the writing stages whose parent is this one."""
        return tuple(child for child in self.writing if child.parent == stage.name)

    def stage(self, name: str) -> Stage:
        """Return a stage by name.

        Raises:
            KeyError: There is no such stage.
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
            yield f"duplicate stage name {name!r} ({count} stages)"
        if not _NAME.fullmatch(name):
            yield f"stage {name!r}: a name must be lower-case words with hyphens between them"
        if name in RESERVED:
            yield f"stage {name!r}: this name is reserved for another configuration"


def _wrong_numbers(stages: tuple[Stage, ...]) -> Iterator[str]:
    for kind, least, most in ((Seeds, 1, 1), (Execution, 0, 1), (Selection, 1, 1)):
        found = [stage.name for stage in stages if isinstance(stage, kind)]
        if len(found) < least:
            yield f"no {kind.__name__} stage"
        elif len(found) > most:
            yield f"{len(found)} {kind.__name__} stages ({', '.join(found)}), at most {most} allowed"
    if stages and not isinstance(stages[-1], Selection):
        yield f"the last stage must be a Selection, not {stages[-1].name!r}"


def _wrong_parents(stages: tuple[Stage, ...]) -> Iterator[str]:
    by_name = {stage.name: stage for stage in stages}
    allowed: dict[type[Stage], tuple[type[Stage], ...]] = {
        Writing: (Seeds, Writing),
        Execution: (Seeds, Writing),
        Selection: (Seeds, Writing, Execution),
    }
    circles = {frozenset(circle): circle for circle in (_circle(stage, by_name) for stage in stages) if circle}
    for circle in circles.values():
        yield f"cycle: {' → '.join([*circle, circle[0]])}"
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
            yield f"stage {stage.name!r}: parent stage {stage.parent!r} does not exist"
        elif not isinstance(parent, allowed[role]):
            kinds = " or ".join(base.__name__ for base in allowed[role])
            yield f"stage {stage.name!r}: its parent must be a {kinds} stage, but {stage.parent!r} is not"
        elif parent.name not in seen and not any(stage.name in circle for circle in circles):
            yield f"stage {stage.name!r}: must be listed after its parent {stage.parent!r}"


def _circle(stage: Stage, by_name: dict[str, Stage]) -> tuple[str, ...]:
    """Return the names on the cycle that the stage is part of, or nothing."""
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
            yield f"stage {stage.name!r} is a dead end: no selection chooses from its descendants"


def _ancestors(parents: dict[str, str], names: Iterable[str]) -> set[str]:
    """Return the names and all their ancestors."""
    found: set[str] = set()
    for name in names:
        while name in parents and name not in found:
            found.add(name)
            name = parents[name]
    return found
