"""Configurations that people write, as YAML: read with the line of each key, every mistake told at once.

A run's configuration is `codealign.dataset.v1.Run` with the names of its fields, and in a form that is pleasant to
write where the message repeats something under a name:

    pipeline: selfcodealign
    model: org/name                      a model's name alone, or {model: ..., revision: ...}
    stages:                              settings by stage name
      instructions:
        few_shots: 4
        properties: {difficulty: [easy]} values by property name
      responses: {attempts: 6, model: teacher}
    selection: {strategy: random-pass}

What the coordinator fills in itself (versions, revisions of rules, digests) cannot be set. Which stages and properties
there are depends on the pipeline: their names are checked once the coordinator has described it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.failures import Failure

FILLED_IN: Mapping[str, Collection[str]] = {
    "Run": ("rejudges",),
    "StageSettings": ("stage", "version"),
    "ExecutionSettings": ("image_digest", "python_version"),
    "SelectionSettings": ("forbidden_texts_sha256", "rules_version"),
    "TrainingSpec": ("model", "model_revision", "dataset"),
    "EvaluationSettings": ("model", "prompt_style"),
}
"""Fields that a file cannot set because the coordinator fills them in, by message."""

_INTEGERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32)
_NUMBERS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_LARGEST = {FieldDescriptor.CPPTYPE_INT32: 2**31 - 1, FieldDescriptor.CPPTYPE_UINT32: 2**32 - 1}

Checked = Callable[[yaml.Node, str], Any]
"""Reads a node at a path, and notes what is wrong with it."""


_UNREADABLE = object()


class Reader:
    """Reads one file, and collects what is wrong with it.

    Args:
        what: How messages call the file: "--config mine.yaml".
        text: Its content.
        pipeline: Whose stages and properties are known. None: any may be.

    Raises:
        Failure: It is no YAML.
    """

    def __init__(self, what: str, text: str, pipeline: api.Pipeline | None = None) -> None:
        self._what = what
        self._properties = None if pipeline is None else _properties(pipeline)
        self._mistakes: list[tuple[int, str]] = []
        self.lines: dict[str, int] = {}
        """Of each key that was read, by its path."""
        try:
            self._loader = yaml.SafeLoader(text)
            self.root = self._loader.get_single_node()
        except yaml.YAMLError as error:
            raise Failure(f"{what}: is no YAML: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise Failure(f"{what}: is nested too deeply") from None

    def wrong(self, node: yaml.Node, message: str) -> None:
        """Note a mistake."""
        self._mistakes.append((node.start_mark.line + 1, message))

    def check(self) -> None:
        """Raise what was noted.

        Raises:
            Failure: Every mistake with its line, in their order.
        """
        if self._mistakes:
            told = [f"line {line}: {message}" for line, message in sorted(self._mistakes)]
            raise Failure(f"{self._what}: " + (told[0] if len(told) == 1 else "\n  " + "\n  ".join(told)))

    def items(self, node: yaml.Node, path: str, known: Collection[str] | None) -> Iterator[tuple[str, yaml.Node]]:
        """The keys and values of a mapping; what is no mapping, or an unknown or repeated key, is noted."""
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
            return
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{_at(path)}must be a mapping, is {_shown(node)}")
            return
        seen: dict[str, int] = {}
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else ""
            if not key:
                self.wrong(key_node, f"{_at(path)}a key must be a word, is {_shown(key_node)}")
            elif key in seen:
                self.wrong(key_node, f"{join(path, key)}: is there twice (first in line {seen[key]})")
            elif known is not None and key not in known:
                self.wrong(key_node, f"{join(path, key)}: unknown{nearest(key, known)}")
            else:
                self.lines[join(path, key)] = key_node.start_mark.line + 1
                yield key, value
            seen.setdefault(key, key_node.start_mark.line + 1)

    def plain(self, node: yaml.Node) -> Any:
        """The value of a node as YAML has it; what only a program could mean is noted."""
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
            self.wrong(node, " ".join(str(getattr(error, "problem", None) or error).split()))
            return _UNREADABLE

    def value(self, node: yaml.Node, path: str, kind: type | tuple[type, ...]) -> Any:
        """A value of one kind; None where it is of another, which is noted."""
        found = self.plain(node)
        if found is _UNREADABLE:
            return None
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
            self.wrong(node, f"{_at(path)}must be {_KINDS.get(kinds[0], kinds[0].__name__)}, is {_shown(node)}")
            return None
        return found

    def message(self, node: yaml.Node, path: str, descriptor: Descriptor) -> dict[str, Any]:
        """Return the fields of a message that a node sets; see `to_run` for the form.

        Fields that only the coordinator fills in are unknown keys.
        """
        hidden = FILLED_IN.get(descriptor.name, ())
        known = {field.name: field for field in descriptor.fields if field.name not in hidden}
        return {
            key: value
            for key, inner in self.items(node, path, known)
            if (value := self._field(inner, join(path, key), known[key])) is not None
        }

    def _field(self, node: yaml.Node, path: str, field: FieldDescriptor) -> Any:
        made = field.message_type
        if made is pb.StageSettings.DESCRIPTOR:
            stages = self.items(node, path, self._properties)
            return {name: self.message(inner, join(path, name), made) for name, inner in stages}
        if made is pb.PropertyDraw.DESCRIPTOR:
            known = None if self._properties is None else self._properties[path.split(".")[-2]]
            return {name: self._texts(inner, join(path, name)) for name, inner in self.items(node, path, known)}
        if made is pb.ModelChoice.DESCRIPTOR and isinstance(node, yaml.ScalarNode):
            name = self.value(node, path, str)
            return None if name is None else {"model": name}
        if made is not None:
            return self.message(node, path, made)
        if field.is_repeated:
            return self._texts(node, path)
        return self._scalar(node, path, field)

    def _texts(self, node: yaml.Node, path: str) -> list[str]:
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(node, f"{path}: must be a list, is {_shown(node)}")
            return []
        return [text for inner in node.value if (text := self.value(inner, path, str)) is not None]

    def _scalar(self, node: yaml.Node, path: str, field: FieldDescriptor) -> Any:
        if field.cpp_type in _NUMBERS:
            amount = self.value(node, path, (float, int))
            if amount is not None and not math.isfinite(amount):
                self.wrong(node, f"{path}: must be a number, is {_shown(node)}")
                return None
            return amount
        if field.cpp_type in _INTEGERS:
            number = self.value(node, path, int)
            if number is not None and not -_LARGEST.get(field.cpp_type, 2**63 - 1) <= number <= _LARGEST.get(
                field.cpp_type, 2**63 - 1
            ):
                self.wrong(node, f"{path}: {number} is too large")
                return None
            return number
        return self.value(node, path, bool if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else str)


_KINDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


def join(path: str, key: str) -> str:
    """A path and the next key."""
    return f"{path}.{key}" if path else key


def nearest(name: str, known: Collection[str]) -> str:
    """What to add to "unknown": the nearest of the names that there are, and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    return f"{meant} there are {', '.join(known) or 'none'}"


def _properties(pipeline: api.Pipeline) -> dict[str, list[str]]:
    """What each stage that a model writes draws."""
    writing = [stage for stage in pipeline.stages if stage.role == api.STAGE_ROLE_WRITING]
    return {stage.name: [draw.name for draw in stage.properties] for stage in writing}


def _at(path: str) -> str:
    return f"{path}: " if path else ""


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


@dataclass(frozen=True)
class RunFile:
    """What a run file sets."""

    what: str = ""
    """How messages call it: "--config mine.yaml"."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """In the form that `to_run` takes."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Of each key, by its path: "stages.concepts.attempts"."""


def read_run(what: str, path: Path, pipeline: api.Pipeline | None = None) -> RunFile:
    """A run file's configuration.

    Args:
        what: How messages call the file: "--config".
        path: The file.
        pipeline: The run's, whose stages and properties may be set. None: it is not known yet.

    Raises:
        Failure: It cannot be read, or holds what no run has: every mistake with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise Failure(f"{what}: cannot read {path}: {error}") from None
    reader = Reader(f"{what} {path}", text, pipeline)
    found = {} if reader.root is None else reader.message(reader.root, "", pb.Run.DESCRIPTOR)
    reader.check()
    return RunFile(f"{what} {path}", found, reader.lines)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two configurations as one: what `over` sets wins, key by key; lists are replaced."""
    found = dict(under)
    for key, value in over.items():
        there = found.get(key)
        found[key] = merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return found


def to_run(given: Mapping[str, Any]) -> pb.Run:
    """A configuration, as `Reader.run` gives it, as the message.

    Stages and properties are in the order of their names: the coordinator puts them in the pipeline's.
    """
    wire = dict(given)
    stages = []
    for name, settings in sorted(given.get("stages", {}).items()):
        stage = {**settings, "stage": name}
        properties = sorted(stage.pop("properties", {}).items())
        stage["properties"] = [{"name": one, "values": values} for one, values in properties]
        stages.append(stage)
    wire["stages"] = stages
    return json_format.ParseDict(wire, pb.Run())


def from_run(run: pb.Run) -> dict[str, Any]:
    """A message as a person would write it, without what the coordinator fills in."""
    return _written(run)


def _written(message: Any) -> dict[str, Any]:
    hidden = FILLED_IN.get(message.DESCRIPTOR.name, ())
    found: dict[str, Any] = {}
    for entry, value in message.ListFields():
        if entry.name in hidden:
            continue
        if entry.message_type is pb.StageSettings.DESCRIPTOR:
            found[entry.name] = {one.stage: _written(one) for one in value}
        elif entry.message_type is pb.PropertyDraw.DESCRIPTOR:
            found[entry.name] = {one.name: list(one.values) for one in value}
        elif entry.message_type is not None:
            found[entry.name] = _written(value)
        else:
            found[entry.name] = value
    return found
