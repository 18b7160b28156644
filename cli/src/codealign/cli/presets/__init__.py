"""Presets: what is set where nobody chooses, for a kind of model or machine. Each is a YAML file of this folder.

A file may set

    model, seeds, benchmarks    as the options of these names; `package:folder` is a folder that a package brings
    inference                   settings of an inference service that is started for the run
    run                         fields of a run's configuration (`codealign.dataset.v1.Run`)
    training                    as `codealign train` has them
    evaluations                 a list; each is an evaluation of both models, as `codealign eval` has it

and every option that a person gives wins over it. `--preset FILE` takes a file of one's own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml
from google.protobuf import json_format

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.failures import Failure

DEFAULT = "default"
_FOLDER = files("codealign.cli.presets")


@dataclass(frozen=True)
class Preset:
    """What a preset's file says."""

    name: str
    model: str = ""
    seeds: str = ""
    benchmarks: str = ""
    inference: Mapping[str, Any] = field(default_factory=dict)
    """By the names of the inference service's settings."""
    run: pb.Run = field(default_factory=pb.Run)
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, name: str, text: str) -> Self:
        """Read a file.

        Raises:
            Failure: Names the key that is wrong.
        """
        try:
            given = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise Failure(f"--preset {name}: is no YAML: {' '.join(str(error).split())}") from None
        kinds = {"inference": dict, "run": dict, "training": dict, "evaluations": list}
        known = [each.name for each in fields(cls) if each.name != "name"]
        if not isinstance(given, dict) or set(given) - set(known):
            strange = ", ".join(map(str, sorted(set(given) - set(known)))) if isinstance(given, dict) else "no mapping"
            raise Failure(f"--preset {name}: unknown: {strange}; there are {', '.join(known)}")
        for key, value in given.items():
            kind = kinds.get(key, str)
            if not isinstance(value, kind):
                raise Failure(f"--preset {name}: {key}: must be a {kind.__name__}, is {value!r}")
        for number, one in enumerate(given.get("evaluations", ())):
            if not isinstance(one, dict):
                raise Failure(f"--preset {name}: evaluations[{number}]: must be a mapping, is {one!r}")
        run = pb.Run()
        try:
            json_format.ParseDict(given.get("run", {}), run)
        except json_format.ParseError as error:
            raise Failure(f"--preset {name}: run: {str(error).splitlines()[0]}") from None
        return cls(**{**given, "name": name, "run": run})

    def source(self, key: str) -> str:
        """The model, seeds or benchmarks, a package's folder as its path. Empty: the preset says nothing of it.

        Raises:
            Failure: The package is not installed.
        """
        value: str = getattr(self, key)
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
        raise Failure(
            f"--preset {self.name}: {key}: {value} is not there: pip install {distribution}, or make it with its recipe"
        )


def names() -> list[str]:
    """The presets that come with this package, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


@cache
def load(name: str) -> Preset:
    """A preset by its name, or from a file.

    Raises:
        Failure: There is none of that name, or its file is wrong; says what to do.
    """
    if name in names():
        return Preset.of(name, (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise Failure(f"--preset: unknown preset {name!r}; there are {', '.join(names())}, or give a file (.yaml)")
    try:
        return Preset.of(name, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise Failure(f"--preset: cannot read {name}: {error}") from None


def known_by(run: pb.Run) -> str:
    """The shipped preset that a configuration was made with, as far as what no option sets can tell."""
    whole = _leaves(run)
    fitting = {name: _leaves(load(name).run) for name in names()}
    found = [(len(own), name) for name, own in fitting.items() if own.items() <= whole.items()]
    return max(found)[1] if max(found)[0] else DEFAULT


_BY_OPTION = {"attempts", "round_size", "prefix_groups", "max_tokens", "temperature", "difficulties"}


def _leaves(run: pb.Run) -> dict[tuple[str, ...], str]:
    """The values that no option sets, by their paths."""
    found: dict[tuple[str, ...], str] = {}

    def walk(value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key))
        elif path[-1] not in _BY_OPTION:
            found[path] = str(value)

    walk(json_format.MessageToDict(run, preserving_proto_field_name=True), ())
    return found
