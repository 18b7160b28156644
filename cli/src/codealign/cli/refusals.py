"""Translate a service's complaints about a run's configuration into the terms of the run file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.failures import Failure
from codealign.cli.run_file import RunFile

_STAGE = re.compile(r"stages\[(?P<stage>\d+)\](?P<rest>.*)")
_PROPERTY = re.compile(r"\.properties\[(?P<property>\d+)\]")
_SECTIONS = ("stages", "selection", "execution", "seeds", "target")


def refusal(run: pb.Run, violations: Sequence[tuple[str, str]], file: RunFile) -> Failure:
    """Return the coordinator's complaints about a configuration as a failure that refers to the run file.

    Args:
        run: The configuration that was sent.
        violations: Path of each invalid field in the request ("config.stages[1].attempts"), and what is wrong.
        file: The run file, for its lines; an empty one if none was given.
    """
    told = []
    for sent, text in violations:
        path = as_written(sent, run)
        line = next((file.lines[start] for start in _beginnings(path) if start in file.lines), None)
        told.append(f"{path}: {text}" + (f" ({file.what}, line {line})" if line else ""))
    return Failure("invalid run settings: " + (told[0] if len(told) == 1 else "\n  " + "\n  ".join(told)))


def as_written(sent: str, run: pb.Run) -> str:
    """Convert a request path to a run file path: "stages.concepts.attempts", "rounds.number"."""
    path = re.sub(r"^series\b", "rounds", sent).removeprefix("config.")
    if not (stage := _STAGE.match(path)) or (number := int(stage["stage"])) >= len(run.stages):
        return path
    settings = run.stages[number]
    rest = "" if stage["rest"] == ".stage" else stage["rest"]
    if (drawn := _PROPERTY.match(rest)) and (at := int(drawn["property"])) < len(settings.properties):
        rest = f".properties.{settings.properties[at].name}"
    return f"stages.{settings.stage}{rest}"


def _beginnings(path: str) -> Iterator[str]:
    """Yield a path and its parents, except whole sections of the file."""
    while "." in path:
        yield path
        path = path.rpartition(".")[0]
    if path not in _SECTIONS:
        yield path
