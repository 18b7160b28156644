"""The few-shot examples, as data: sets of them, each a folder in `fewshots/` with a TOML file for each example."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files

_FOLDER = files("codealign.coordinator.method") / "fewshots"


@dataclass(frozen=True)
class FewShot:
    """One example of the whole method, from seed to tests."""

    name: str
    seed: str
    category: str
    language: str
    difficulty: str
    concepts: tuple[str, ...]
    instruction: str
    response: str
    """Markdown with exactly one Python block."""
    tests: str
    """Python code."""


def sets() -> list[str]:
    """The names of the sets, sorted."""
    return sorted(entry.name for entry in _FOLDER.iterdir() if entry.is_dir())


@cache
def load(name: str) -> tuple[FewShot, ...]:
    """The examples of a set, sorted by name."""
    found = []
    for entry in sorted((_FOLDER / name).iterdir(), key=lambda item: item.name):
        if not entry.name.endswith(".toml"):
            continue
        data = tomllib.loads(entry.read_text(encoding="utf-8"))
        prop, example = data["property"], data["example"]
        found.append(
            FewShot(
                name=entry.name.removesuffix(".toml"),
                seed=example["seed"].strip("\n"),
                category=prop["category"],
                language=prop["language"],
                difficulty=prop["difficulty"],
                concepts=tuple(prop["concepts"]),
                instruction=example["instruction"].strip(),
                response=example["response"].strip(),
                tests=example["tests"].strip(),
            )
        )
    return tuple(found)


@cache
def content_sha256(name: str) -> str:
    """A hash of every example of a set: part of each generating stage's configuration."""
    data = json.dumps([asdict(example) for example in load(name)], sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()


def ordering(
    name: str, seed: int, stage: str, group: str, count: int, difficulties: Collection[str] = ()
) -> Sequence[FewShot]:
    """The first `count` examples of a group's ordering.

    The ordering sorts the examples by a hash, so it is the same under every version of Python.

    Args:
        name: The set's.
        seed: The run's seed.
        stage: The stage's name; stages have orderings of their own.
        group: The group's name.
        count: Examples wanted; at most all.
        difficulties: Examples of these come first: they show what is asked for. Empty: all are equal.
    """

    def rank(example: FewShot) -> tuple[bool, str]:
        digest = hashlib.sha256(f"{seed}\n{stage}\n{group}\n{example.name}".encode()).hexdigest()
        return bool(difficulties) and example.difficulty not in difficulties, digest

    return sorted(load(name), key=rank)[:count]
