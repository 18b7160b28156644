"""Few-shot examples as data: each set of a pipeline is a directory with one TOML file per example."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from codealign.common.errors import ConfigurationError


@dataclass(frozen=True)
class FewShot:
    """One example of the whole method, from seed to tests."""

    name: str
    seed: str
    """What the pipeline begins with: code, or a task that `instruction` makes harder."""
    category: str
    language: str
    difficulty: str
    concepts: tuple[str, ...]
    instruction: str
    response: str
    """Markdown with exactly one Python block."""
    tests: str
    """Python code."""
    method: str = ""
    """How `instruction` makes the seed harder. Empty: the seed is code."""


@dataclass(frozen=True)
class FewShotSets:
    """The few-shot sets of a pipeline."""

    package: str
    """The pipeline's package, whose directory `few_shots` has a subdirectory for each set. Empty: there are none."""
    default: str
    parts: Mapping[str, tuple[str, Collection[str]]] = field(default_factory=dict)
    """Further sets, each a part of a set of the package: that set's name, and the names of the chosen examples."""

    def names(self) -> list[str]:
        """Return the names of the sets, the default first, the others sorted."""
        if not self.package:
            return []
        found = {entry.name for entry in (files(self.package) / "few_shots").iterdir() if entry.is_dir()}
        found |= self.parts.keys()
        return [self.default, *sorted(found - {self.default})]

    def mistakes(self) -> Iterator[str]:
        """Yield what is wrong with the sets: missing or empty sets, and examples that cannot be read."""
        if not self.package:
            yield "its writing stages need few-shot sets"
            return
        try:
            names = self.names()
        except OSError:
            yield f"package {self.package} has no directory few_shots"
            return
        for name in names:
            try:
                if not self.load(name):
                    yield f"few-shot set {name!r} is empty"
            except FileNotFoundError:
                yield f"few-shot set {name!r} does not exist"
            except KeyError as error:
                yield f"few-shot set {name!r}: there is no example {error} in the set {self.parts[name][0]!r}"
            except ConfigurationError as error:
                yield str(error)

    def load(self, name: str) -> tuple[FewShot, ...]:
        """Return the examples of a set, sorted by name.

        Raises:
            FileNotFoundError: There is no such set.
            KeyError: The set is a part of another one that lacks one of its examples.
            ConfigurationError: An example cannot be read; names its file and the error.
        """
        if name not in self.parts:
            return _load(self.package, name)
        whole, chosen = self.parts[name]
        by_name = {example.name: example for example in _load(self.package, whole)}
        return tuple(by_name[each] for each in sorted(chosen))

    def content_sha256(self, name: str) -> str:
        """Return a hash of a set's examples, which every draw depends on."""
        return _content_sha256(self.load(name))

    def ordering(
        self, name: str, seed: int, stage: str, group: str, count: int, difficulties: Collection[str] = ()
    ) -> Sequence[FewShot]:
        """Return the first `count` examples of a group's ordering.

        Examples are ordered by a hash, so the order is the same in every Python version.

        Args:
            name: Name of the set.
            seed: The run's seed.
            stage: Name of the stage; each stage has its own orderings.
            group: Name of the prefix group.
            count: Number of examples; at most all.
            difficulties: Examples with these difficulties come first, to show what is wanted. Empty: no preference.
        """

        def rank(example: FewShot) -> tuple[bool, str]:
            digest = hashlib.sha256(f"{seed}\n{stage}\n{group}\n{example.name}".encode()).hexdigest()
            return bool(difficulties) and example.difficulty not in difficulties, digest

        return sorted(self.load(name), key=rank)[:count]


NO_FEW_SHOTS = FewShotSets("", "")
"""For a pipeline in which no model writes."""


@cache
def _content_sha256(examples: Sequence[FewShot]) -> str:
    data = json.dumps([_content(example) for example in examples], sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()


def _content(example: FewShot) -> dict[str, object]:
    return {name: value for name, value in asdict(example).items() if name != "method" or value}


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
            method=prop.get("method", ""),
        )
    except KeyError as error:
        raise ConfigurationError(f"few-shot example {name}/{entry.name}: {error} is missing") from error
    except (ValueError, TypeError, AttributeError) as error:  # not UTF-8, not TOML, or a value of another type
        raise ConfigurationError(f"few-shot example {name}/{entry.name}: cannot be read: {error}") from error
