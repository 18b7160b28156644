"""Few-shot examples as data: a pipeline's sets, each a folder with a TOML file for each example."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from codealign.common.errors import ConfigurationError


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


@dataclass(frozen=True)
class FewShotSets:
    """The sets of a pipeline."""

    package: str
    """The pipeline's: its folder `few_shots` holds a folder for each set."""
    default: str

    def names(self) -> list[str]:
        """The sets' names, the default first, the others sorted."""
        found = {entry.name for entry in (files(self.package) / "few_shots").iterdir() if entry.is_dir()}
        return [self.default, *sorted(found - {self.default})]

    def mistakes(self) -> Iterator[str]:
        """What is wrong with the sets: they are not there, are empty, or hold an example that cannot be read."""
        try:
            names = self.names()
        except OSError:
            yield f"package {self.package} has no folder few_shots"
            return
        for name in names:
            try:
                if not self.load(name):
                    yield f"few-shot set {name!r} holds no example"
            except FileNotFoundError:
                yield f"there is no few-shot set {name!r}"
            except ConfigurationError as error:
                yield str(error)

    def load(self, name: str) -> tuple[FewShot, ...]:
        """The examples of a set, sorted by name.

        Raises:
            FileNotFoundError: There is no such set.
            ConfigurationError: An example cannot be read; names its file and what is wrong.
        """
        return _load(self.package, name)

    def content_sha256(self, name: str) -> str:
        """A hash of a set's examples: part of what every draw depends on."""
        return _content_sha256(self.package, name)

    def ordering(
        self, name: str, seed: int, stage: str, group: str, count: int, difficulties: Collection[str] = ()
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

        return sorted(self.load(name), key=rank)[:count]


@cache
def _content_sha256(package: str, name: str) -> str:
    data = json.dumps([asdict(example) for example in _load(package, name)], sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()


@cache
def _load(package: str, name: str) -> tuple[FewShot, ...]:
    folder = files(package) / "few_shots" / name
    entries = sorted(folder.iterdir(), key=lambda item: item.name)
    return tuple(_read(name, entry) for entry in entries if entry.name.endswith(".toml"))


def _read(name: str, entry: Traversable) -> FewShot:
    try:
        data = tomllib.loads(entry.read_text(encoding="utf-8"))
        prop, example = data["property"], data["example"]
        return FewShot(
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
    except KeyError as error:
        raise ConfigurationError(f"few-shot example {name}/{entry.name}: {error} is missing") from error
    except (ValueError, TypeError, AttributeError) as error:  # no UTF-8, no TOML, a value of another type
        raise ConfigurationError(f"few-shot example {name}/{entry.name}: cannot be read: {error}") from error
