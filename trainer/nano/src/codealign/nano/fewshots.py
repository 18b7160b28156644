"""nano's few-shot sets: correct examples of its world, in the coordinator's file format."""

from __future__ import annotations

import random
from collections.abc import Iterable

from codealign.coordinator.pipelines.evol_instruct import evolutions
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.nano import examples, harder

COUNT = 21
"""Same number as in the method's own few-shot set."""


def write_fewshots(seed: int, count: int = COUNT) -> dict[str, str]:
    """Return the examples' texts by file name; determined by the seed."""
    dice = random.Random(f"few-shots {seed}")  # noqa: S311 - not used for secrets
    found: dict[str, str] = {}
    while len(found) < count:
        shot = examples.draw_example(dice, clean=True).few_shot
        found.setdefault(f"{len(found) + 1:02}-{shot.name.replace('_', '-')}.toml", _toml(shot))
    return found


def write_evolved(seed: int) -> dict[str, str]:
    """Return the texts of Evol-Instruct's examples by file name, one for each method; determined by the seed."""
    dice = random.Random(f"evolved few-shots {seed}")  # noqa: S311 - not used for secrets
    shots = [harder.draw_harder(dice, method).few_shot(dice) for method in evolutions.METHODS]
    return {f"{number}-{shot.method}.toml": _toml(shot) for number, shot in enumerate(shots, 1)}


def _toml(shot: FewShot) -> str:
    return "\n".join(
        (
            "[property]",
            f'category = "{shot.category}"',
            f'language = "{shot.language}"',
            f'difficulty = "{shot.difficulty}"',
            f"concepts = [{_quoted(shot.concepts)}]",
            *([f'method = "{shot.method}"'] if shot.method else []),
            "",
            "[example]",
            *(f'{key} = """\n{_escaped(text)}"""' for key, text in _texts(shot)),
            "",
        )
    )


def _texts(shot: FewShot) -> Iterable[tuple[str, str]]:
    return (
        ("seed", shot.seed),
        ("instruction", shot.instruction),
        ("response", shot.response),
        ("tests", shot.tests),
    )


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
