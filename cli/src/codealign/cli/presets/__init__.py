"""Presets, one YAML file each: values for options that the user leaves out, for a kind of model or machine.

A preset may set

    model, seeds, benchmarks    as the options of the same names; `package:folder` is a directory in a package
    models                      further models by alias: names for --model, and for the models of an experiment
    inference                   settings of the inference service, if it is started for the run
    run                         the run's configuration, in the form of a run file (see `run_file`)
    training                    fields of TrainingSpec
    evaluations                 a list of EvaluationSettings; both models are evaluated with each

Options and run files win over the preset. A preset is made for a model, not for a pipeline: settings of stages,
properties or few-shot sets that the run's pipeline lacks are ignored. `--preset FILE` reads a user's own file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.failures import Failure
from codealign.cli.run_file import Reader, from_run

DEFAULT = "default"
_FOLDER = files("codealign.cli.presets")


@dataclass(frozen=True)
class Preset:
    """Contents of a preset file."""

    name: str
    model: str = ""
    seeds: str = ""
    benchmarks: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    """Sources of further models by alias."""
    inference: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the inference service, by name."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Run configuration in the form of a run file."""
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, name: str, text: str) -> Self:
        """Parse a preset file.

        Raises:
            Failure: Lists every invalid key with its line.
        """
        reader = Reader(f"--preset {name}", text)
        known = [each.name for each in fields(cls) if each.name != "name"]
        found: dict[str, Any] = {}
        for key, node in reader.items(reader.root, "", known) if reader.root is not None else ():
            if key == "run":
                found[key] = reader.message(node, key, pb.Run.DESCRIPTOR)
            elif key == "inference":
                found[key] = {inner: reader.plain(value) for inner, value in reader.items(node, key, None)}
            elif key == "models":
                pairs = reader.items(node, key, None)
                found[key] = {alias: reader.value(value, f"{key}.{alias}", str) for alias, value in pairs}
            elif key == "training":
                found[key] = reader.message(node, key, training.TrainingSpec.DESCRIPTOR)
            elif key == "evaluations":
                found[key] = evaluations(reader, node, key)
            else:
                found[key] = reader.value(node, key, str)
        reader.check()
        return cls(**found, name=name)

    def source(self, key: str) -> str:
        """Return the model, seeds or benchmarks, with package directories as paths. Empty: not set by the preset.

        Raises:
            Failure: The package is not installed.
        """
        return self._located(key, getattr(self, key))

    def model_source(self, alias: str) -> str:
        """Return the source of one of `models`, with package directories as paths.

        Raises:
            Failure: The package is not installed.
        """
        return self._located(f"models.{alias}", self.models[alias])

    def _located(self, key: str, value: str) -> str:
        package, colon, folder = value.partition(":")
        if not colon or folder.startswith("//"):
            return value
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            spec = None
        for location in (spec and spec.submodule_search_locations) or ():
            if (path := Path(location) / folder).exists():
                return str(path)
        distribution = package.replace(".", "-")
        raise Failure(f"--preset {self.name}: {key}: {value} does not exist: pip install {distribution}, or build it")


def evaluations(reader: Reader, node: yaml.Node, path: str) -> list[dict[str, Any]]:
    """Return a list of EvaluationSettings. Records mistakes in the reader."""
    if not isinstance(node, yaml.SequenceNode):
        reader.value(node, path, list)
        return []
    settings = pb.EvaluationSettings.DESCRIPTOR
    return [reader.message(inner, f"{path}[{number}]", settings) for number, inner in enumerate(node.value)]


def names() -> list[str]:
    """Return the names of the presets in this package, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


@cache
def load(name: str) -> Preset:
    """Return a preset by name or from a file.

    Raises:
        Failure: There is no such preset, or its file is invalid.
    """
    if name in names():
        return Preset.of(name, (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise Failure(f"--preset: unknown preset {name!r}; valid: {', '.join(names())}, or a file (.yaml)")
    try:
        return Preset.of(name, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise Failure(f"--preset: cannot read {name}: {error}") from None


def known_by(run: pb.Run) -> str:
    """Return the built-in preset that a configuration was made with, judging by values that no option sets."""
    written = from_run(run)
    whole = _leaves(written)
    stages = set(written.get("stages", {}))
    fitting = {name: _leaves(load(name).run, stages) for name in names()}
    found = [(len(own), name) for name, own in fitting.items() if own.items() <= whole.items()]
    return max(found)[1] if max(found)[0] else DEFAULT


_BY_OPTION = {
    "attempts",
    "round_size",
    "prefix_groups",
    "max_tokens",
    "temperature",
    "difficulty",
    "strategy",
}


def _leaves(run: Mapping[str, Any], stages: Collection[str] | None = None) -> dict[tuple[str, ...], str]:
    """Return the values that no option sets, by their paths, optionally of these stages only."""
    found: dict[tuple[str, ...], str] = {}

    def descend(value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if stages is None or path != ("stages",) or key in stages:
                    descend(inner, (*path, str(key)))
        elif path[-1] not in _BY_OPTION:
            found[path] = str(value)

    descend(run, ())
    return found
