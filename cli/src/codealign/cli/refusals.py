"""What a service finds wrong with a run's configuration, in the words of who wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.failures import Failure
from codealign.cli.run_file import RunFile

_STAGE = re.compile(r"stages\[(?P<stage>\d+)\](?P<rest>.*)")
_PROPERTY = re.compile(r"\.properties\[(?P<property>\d+)\]")
_SECTIONS = ("stages", "selection", "execution", "seeds")


def refusal(run: pb.Run, violations: Sequence[tuple[str, str]], file: RunFile) -> Failure:
    """What the coordinator finds wrong with a configuration, in the words of who wrote it.

    Args:
        run: What was sent.
        violations: Each wrong field's path in the request ("config.stages[1].attempts"), and what is wrong.
        file: The run file that was given, for its lines; an empty one: none was.
    """
    told = []
    for sent, text in violations:
        path = _as_written(sent, run)
        line = next((file.lines[start] for start in _beginnings(path) if start in file.lines), None)
        told.append(f"{path}: {text}" + (f" ({file.what}, line {line})" if line else ""))
    return Failure("the run's settings are wrong: " + (told[0] if len(told) == 1 else "\n  " + "\n  ".join(told)))


def _as_written(sent: str, run: pb.Run) -> str:
    """A path in the request as a run file has it: "stages.concepts.attempts"."""
    path = sent.removeprefix("config.")
    if not (stage := _STAGE.match(path)) or (number := int(stage["stage"])) >= len(run.stages):
        return path
    settings = run.stages[number]
    rest = "" if stage["rest"] == ".stage" else stage["rest"]
    if (drawn := _PROPERTY.match(rest)) and (at := int(drawn["property"])) < len(settings.properties):
        rest = f".properties.{settings.properties[at].name}"
    return f"stages.{settings.stage}{rest}"


def _beginnings(path: str) -> Iterator[str]:
    """A path, what it is in, what that is in, and so on, but no whole section of the file."""
    while "." in path:
        yield path
        path = path.rpartition(".")[0]
    if path not in _SECTIONS:
        yield path
