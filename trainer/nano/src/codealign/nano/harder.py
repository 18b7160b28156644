"""Harder tasks of nano's world: pairs of tasks, one made from the other by a method of Evol-Instruct."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from codealign.coordinator.pipelines.evol_instruct.evolutions import METHODS
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.nano import examples, functions
from codealign.nano.blocks import REDUCES
from codealign.nano.functions import Composition, Names

CONSTRAINTS, RARER, STEPS, MISLEADING, COMPLEXITY = METHODS
"""Names of the methods."""
_COMMON = {"sum", "size", "list", "largest", "ascending"}
"""Reductions that tasks ask for before they become harder."""
_LIMITS = ("It must take linear time.", "A single pass must suffice.", "The time must grow linearly with the input.")
_LIMITED_SHARE = 0.2
"""Fraction of given tasks that already limit the time, as after an earlier round."""


@dataclass(frozen=True)
class Harder:
    """A task, and the same task after a method made it harder."""

    method: str
    given: str
    task: str
    composition: Composition
    """What the harder task asks for."""
    names: Names

    def few_shot(self, dice: random.Random) -> FewShot:
        """Return the pair in the form that prompt templates use, with a correct answer."""
        example = examples.write_example(dice, self.composition, self.names, clean=True)
        return replace(example.few_shot, seed=self.given, instruction=self.task, method=self.method)


def draw_harder(dice: random.Random, method: str | None = None) -> Harder:
    """Draw a pair of tasks, for a random method by default."""
    method = method or dice.choice(tuple(METHODS))
    given, harder = _draw_compositions(dice, method)
    names = functions.draw_names(dice, given)
    template = dice.choice(examples.TASKS)
    limit = ""
    if method != COMPLEXITY and dice.random() < _LIMITED_SHARE:
        limit = f" {dice.choice(_LIMITS)}"
    before, after = (examples.fill(template, each, names) + limit for each in (given, harder))
    return Harder(method, before, complicate(dice, after, harder, names, method), harder, names)


def complicate(dice: random.Random, task: str, composition: Composition, names: Names, method: str) -> str:
    """Return the task with the text that a method adds, if it adds any."""
    match method:
        case "misleading-code":
            return f"{task} This code has a mistake:\n\n```python\n{_wrong_function(dice, composition, names)}\n```"
        case "complexity":
            return f"{task} {dice.choice(_LIMITS)}"
        case _:
            return task


def _draw_compositions(dice: random.Random, method: str) -> tuple[Composition, Composition]:
    """Return what a given task asks for, and what it asks for after a method made it harder."""
    while True:
        harder = functions.draw(dice)
        given = _easier(dice, harder, method)
        if given and functions.is_valid(given) and not given.is_held_out:
            return given, harder


def _easier(dice: random.Random, harder: Composition, method: str) -> Composition | None:
    """Return what a task may have asked for before it became `harder`, or None if this method does not lead there."""
    filtered = harder.filter is not functions.EVERYTHING
    unchanged = functions.unchanged(harder.source.kind)
    mapped = harder.map is not unchanged
    match method:
        case "constraints" if filtered:
            return replace(harder, filter=functions.EVERYTHING, filter_constant=None)
        case "rarer-requirement" if harder.reduce.name not in _COMMON:
            return _reduced(dice, harder)
        case "reasoning-steps" if filtered and mapped:
            plain = replace(harder, map=unchanged, map_constant=None)
            return plain if unchanged.gives in plain.reduce.kinds else _reduced(dice, plain)
        case "misleading-code" if harder.has_slip:
            return harder
        case "complexity":
            return harder
        case _:
            return None


def _reduced(dice: random.Random, composition: Composition) -> Composition:
    """Return the composition with a common reduction."""
    fitting = [each for each in REDUCES if each.name in _COMMON and composition.map.gives in each.kinds]
    return replace(composition, reduce=dice.choice(fitting), reduce_constant=None)


def _wrong_function(dice: random.Random, composition: Composition, names: Names) -> str:
    """Return a function that misuses each block that people misuse."""
    body = functions.write_body(dice, composition, names, wrong_share=1.0)
    head = examples.signature(composition, names, annotated=dice.random() < 0.5)
    return f"{head}\n{functions.indented(body.body)}"
