"""Experiment files (YAML): a matrix of arms, and the claims that it is to decide. docs/experiments.md has the format.

The files in this package are presets, named like the tables of the paper that they repeat.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.failures import Failure
from codealign.cli.presets import evaluations
from codealign.cli.run_file import Reader, join, line_of, nearest

BASE = "base"
"""Short form of an arm that is not trained, as an item of `arms`."""
AXES: Mapping[str, type] = {"pipeline": str, "generator": str, "model": str, "strategy": str, "rows": int}
"""Settings of an arm that a matrix may vary, with their types."""
_FILE = {
    "name": str,
    "description": str,
    "preset": str,
    "functions": str,
    "n": int,
    "seeds": list,
    "models": dict,
    "run": dict,
    "training": dict,
    "evaluations": list,
    "arms": list,
    "matrix": dict,
    "claims": list,
}
_NUMBERS = {
    "n": pb.SeedSelection.DESCRIPTOR.fields_by_name["limit"],
    "seeds": pb.Experiment.DESCRIPTOR.fields_by_name["seeds"],
    "rows": pb.ExperimentArm.DESCRIPTOR.fields_by_name["rows"],
}
"""Fields that limit what the file's whole numbers may be."""
_ARM = ("name", "untrained", *AXES, "instructions_of", "run", "training")
_CLAIM = ("statement", "better", "than", "benchmark", "source")
_MOST_ARMS = 1000
"""No coordinator carries out more cells."""
_FOLDER = files("codealign.cli.experiments")


@dataclass(frozen=True)
class Arm:
    """An arm as written."""

    name: str
    place: str
    """Path in the file: "arms[2]" or "matrix"."""
    untrained: bool = False
    pipeline: str = ""
    generator: str = ""
    """Alias of the model that writes the data. Empty: the trained model."""
    model: str = ""
    """Alias of the model that is trained and evaluated. Empty: the experiment's model."""
    strategy: str = ""
    rows: int = 0
    instructions_of: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExperimentFile:
    """Contents of an experiment file."""

    what: str
    """The file's name in messages."""
    name: str = ""
    description: str = ""
    preset: str = ""
    functions: str = ""
    n: int = 0
    seeds: Sequence[int] = (0,)
    models: Mapping[str, str] = field(default_factory=dict)
    """Sources of further models by alias. Empty: the user must name it."""
    run: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()
    arms: Sequence[Arm] = ()
    claims: Sequence[pb.ExperimentClaim] = ()
    lines: Mapping[str, int] = field(default_factory=dict)
    """Line of each key, by its path."""

    def failure(self, mistakes: Sequence[tuple[str, str]]) -> Failure:
        """Return a failure that lists mistakes by their paths in the file."""
        told = []
        for path, text in mistakes:
            line = line_of(path, self.lines)
            told.append((f"line {line}: " if line else "") + (f"{path}: {text}" if path else text))
        return Failure(f"{self.what}: " + (told[0] if len(told) == 1 else "\n  " + "\n  ".join(told)))


def names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def load(name: str) -> ExperimentFile:
    """Read a preset by its name, or a file.

    Raises:
        Failure: There is no such preset or file, or it has mistakes; lists each with its line.
    """
    if name in names():
        return parse(name, (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise Failure(f"unknown experiment {name!r}; valid: {', '.join(names())}, or a file (.yaml)")
    try:
        return parse(name, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise Failure(f"cannot read {name}: {error}") from None


def parse(what: str, text: str) -> ExperimentFile:
    """Parse an experiment file.

    Args:
        what: The file's name in messages.
        text: The file's content.

    Raises:
        Failure: Lists every mistake with its line.
    """
    reader = Reader(what, text)
    found: dict[str, Any] = {}
    arms: list[Arm] = []
    if reader.root is None:
        raise Failure(f"{what}: is empty; docs/experiments.md has the format")
    for key, node in reader.items(reader.root, "", _FILE):
        if key == "run":
            found[key] = reader.message(node, key, pb.Run.DESCRIPTOR)
        elif key == "training":
            found[key] = reader.message(node, key, training.TrainingSpec.DESCRIPTOR)
        elif key == "evaluations":
            found[key] = evaluations(reader, node, key)
        elif key == "models":
            found[key] = {
                alias: reader.value(value, join(key, alias), str) for alias, value in reader.items(node, key, None)
            }
        elif key == "seeds":
            listed = enumerate(_list(reader, node, key))
            found[key] = [_value(reader, each, f"{key}[{at}]", key, int) for at, each in listed]
        elif key == "arms":
            arms += [_arm(reader, each, f"{key}[{at}]") for at, each in enumerate(_list(reader, node, key))]
        elif key == "matrix":
            arms += _product(reader, node, key)
        elif key == "claims":
            found[key] = [_claim(reader, each, f"{key}[{at}]") for at, each in enumerate(_list(reader, node, key))]
        else:
            found[key] = _value(reader, node, key, key, _FILE[key])
            if key == "n" and (found[key] or 0) < 0:
                reader.wrong(node, f"n: must not be negative, is {found[key]}; 0 takes all")
    for at, arm in enumerate(arms):
        for key, alias in (("model", arm.model), ("generator", arm.generator)):
            if alias and alias not in found.get("models", {}):
                reader.wrong_at(f"{arm.place}.{key}", f"{alias!r} is not in `models`: add it there with its source")
        if arm.name and arm.name in [other.name for other in arms[:at]]:
            reader.wrong_at(f"{arm.place}.name", f"duplicate arm {arm.name!r}")
    if not found.get("name"):
        reader.wrong(reader.root, "name: must be set: the results are written under this name")
    if not arms and not {"arms", "matrix"} & reader.lines.keys():
        reader.wrong(reader.root, "arms: must be set, or `matrix`: what the experiment compares")
    reader.check()
    file = ExperimentFile(what=what, arms=arms, lines=reader.lines, **found)
    if mistakes := list(_unknown_arms(file)):
        raise file.failure(mistakes)
    return file


def _unknown_arms(file: ExperimentFile) -> Iterator[tuple[str, str]]:
    known = [arm.name for arm in file.arms]
    named = [(f"{arm.place}.instructions_of", arm.instructions_of) for arm in file.arms if arm.instructions_of]
    for at, claim in enumerate(file.claims):
        named += [(f"claims[{at}].better", claim.better), (f"claims[{at}].than", claim.than)]
    for place, name in named:
        if name not in known:
            yield place, f"unknown arm {name!r}{nearest(name, known)}"


def _value(reader: Reader, node: yaml.Node, path: str, key: str, kind: type) -> Any:
    """Return the value of a key. Record a value of another kind, or a number that is too large, and return None."""
    return reader.scalar(node, path, _NUMBERS[key]) if key in _NUMBERS else reader.value(node, path, kind)


def _list(reader: Reader, node: yaml.Node, path: str) -> Sequence[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    reader.value(node, path, list)
    return ()


def _arm(reader: Reader, node: yaml.Node, path: str) -> Arm:
    if isinstance(node, yaml.ScalarNode) and node.value == BASE:
        return Arm(BASE, path, untrained=True)
    found: dict[str, Any] = {}
    for key, value in reader.items(node, path, _ARM):
        at = join(path, key)
        if key == "run":
            found[key] = reader.message(value, at, pb.Run.DESCRIPTOR)
        elif key == "training":
            found[key] = reader.message(value, at, training.TrainingSpec.DESCRIPTOR)
        else:
            kind = bool if key == "untrained" else AXES.get(key, str)
            found[key] = _value(reader, value, at, key, kind)
    if isinstance(node, yaml.MappingNode) and not found.get("name"):
        reader.wrong(node, f"{path}.name: must be set")
    if found.get("untrained"):
        for key in found.keys() - {"name", "untrained", "model"}:
            reader.wrong(node, f"{path}.{key}: must not be set for an arm that is not trained")
    return Arm(place=path, **{"name": "", **{key: value for key, value in found.items() if value is not None}})


def _product(reader: Reader, node: yaml.Node, path: str) -> list[Arm]:
    """Return an arm for every combination of the axes' values, named after the values that differ."""
    axes: dict[str, list[Any]] = {}
    for key, value in reader.items(node, path, AXES):
        at = join(path, key)
        axes[key] = [
            _value(reader, each, f"{at}[{number}]", key, AXES[key])
            for number, each in enumerate(_list(reader, value, at))
        ]
        if not axes[key]:
            reader.wrong(value, f"{at}: must be a list with one value at least")
    if not axes:
        return []
    if (number := math.prod(map(len, axes.values()))) > _MOST_ARMS:
        reader.wrong(node, f"{path}: has {number:,} combinations; at most {_MOST_ARMS:,}")
        return []
    varied = [key for key, values in axes.items() if len(values) > 1] or list(axes)
    found = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        found.append(Arm(name=", ".join(_said(key, chosen[key]) for key in varied), place=path, **chosen))
    return found


def _said(axis: str, value: Any) -> str:
    told = {"rows": f"{value} rows", "generator": f"data of {value}", "model": f"model {value}"}
    return told.get(axis, str(value))


def _claim(reader: Reader, node: yaml.Node, path: str) -> pb.ExperimentClaim:
    found = {key: reader.value(value, join(path, key), str) for key, value in reader.items(node, path, _CLAIM)}
    for key in ("statement", "better", "than"):
        if not found.get(key):
            reader.wrong(node, f"{path}.{key}: must be set")
    return pb.ExperimentClaim(**{key: value for key, value in found.items() if value})
