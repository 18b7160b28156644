"""Read YAML configuration files, and report every mistake at once, each with its line.

A run's configuration has the fields of `codealign.dataset.v1.Run`. Repeated messages that carry a name are written as
mappings by name:

    pipeline: selfcodealign
    model: org/name                      a model's name, or {model: ..., revision: ...}
    stages:                              settings by stage name
      instructions:
        few_shots: 4
        properties: {difficulty: [easy]} values by property name
      responses: {attempts: 6, model: teacher}
    selection: {strategy: random-pass}

Beside them, `rounds` asks for a series of rounds: a number, or the fields of `RoundSeries`:

    rounds: {number: 3, generates: instructions, train_from: previous, stop: {worse_p: 0.01}}

Fields that the coordinator fills in (versions, revisions of rules, digests) cannot be set. Valid stage and property
names depend on the pipeline, so they are checked once the coordinator has described it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.failures import Failure
from codealign.common.text import encodable

FILLED_IN: Mapping[str, Collection[str]] = {
    "Run": ("rejudges",),
    "StageSettings": ("stage", "version"),
    "ExecutionSettings": ("image_digest", "python_version"),
    "SelectionSettings": ("forbidden_texts_sha256", "rules_version"),
    "TrainingSpec": ("model", "model_revision", "dataset"),
    "EvaluationSettings": ("model", "prompt_style"),
    "RoundSeries": ("loop",),
}
"""Fields that a file cannot set because the coordinator fills them in, by message."""

_INTEGERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32)
_NUMBERS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_LARGEST: Mapping[int, int] = {
    FieldDescriptor.CPPTYPE_INT32: 2**31 - 1,
    FieldDescriptor.CPPTYPE_UINT32: 2**32 - 1,
    FieldDescriptor.CPPTYPE_INT64: 2**63 - 1,
}

_UNREADABLE = object()
_SURROGATE = "has half of a UTF-16 pair (\\ud800 to \\udfff), which is no character: write the character itself"
"""What is wrong with a text that YAML's escapes can write and no message can hold."""


def largest(message: type[Message], field: str) -> int:
    """Return the largest whole number that a field of a message holds: the bound of an option that sets it."""
    return _LARGEST[message.DESCRIPTOR.fields_by_name[field].cpp_type]


class Reader:
    """Reader of one configuration file that collects the mistakes it finds.

    Args:
        what: The file's name in messages, e.g. "--config mine.yaml".
        text: The file's content.
        pipeline: The pipeline whose stages and properties may be set. None: accept any names.

    Raises:
        Failure: The text is not YAML.
    """

    def __init__(self, what: str, text: str, pipeline: api.Pipeline | None = None) -> None:
        self._what = what
        self._properties = None if pipeline is None else _properties(pipeline)
        self._mistakes: list[tuple[int, str]] = []
        self.lines: dict[str, int] = {}
        """Line of each key that was read, by its path."""
        try:
            self._loader = yaml.SafeLoader(text)
            self.root = self._loader.get_single_node()
        except yaml.YAMLError as error:
            raise Failure(f"{what}: is not YAML: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise Failure(f"{what}: is nested too deeply") from None

    def wrong(self, node: yaml.Node, message: str) -> None:
        """Record a mistake."""
        self._mistakes.append((node.start_mark.line + 1, message))

    def wrong_at(self, path: str, message: str) -> None:
        """Record a mistake at a path, whose line is that of the nearest key that was read."""
        self._mistakes.append((line_of(path, self.lines) or 1, f"{path}: {message}"))

    def check(self) -> None:
        """Raise the recorded mistakes.

        Raises:
            Failure: Lists every mistake with its line, in file order.
        """
        if self._mistakes:
            told = [f"line {line}: {message}" for line, message in sorted(self._mistakes)]
            raise Failure(f"{self._what}: " + (told[0] if len(told) == 1 else "\n  " + "\n  ".join(told)))

    def items(self, node: yaml.Node, path: str, known: Collection[str] | None) -> Iterator[tuple[str, yaml.Node]]:
        """Yield the keys and values of a mapping. Record unknown and repeated keys, and nodes that are no mapping."""
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
            return
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{_at(path)}must be a mapping, is {_shown(node)}")
            return
        seen: dict[str, int] = {}
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else ""
            if encodable(key) != key:
                self.wrong(key_node, f"{_at(path)}{_SURROGATE}")
            elif not key:
                self.wrong(key_node, f"{_at(path)}a key must be a word, is {_shown(key_node)}")
            elif key in seen:
                self.wrong(key_node, f"{join(path, key)}: duplicate key (first on line {seen[key]})")
            elif known is not None and key not in known:
                self.wrong(key_node, f"{join(path, key)}: unknown{nearest(key, known)}")
            else:
                self.lines[join(path, key)] = key_node.start_mark.line + 1
                yield key, value
            seen.setdefault(key, key_node.start_mark.line + 1)

    def plain(self, node: yaml.Node) -> Any:
        """Return a node's value as YAML defines it. Record values that cannot be constructed."""
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
            self.wrong(node, " ".join(str(getattr(error, "problem", None) or error).split()))
            return _UNREADABLE

    def value(self, node: yaml.Node, path: str, kind: type | tuple[type, ...]) -> Any:
        """Return a value of one kind. Record a value of another kind and return None."""
        found = self.plain(node)
        if found is _UNREADABLE:
            return None
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
            self.wrong(node, f"{_at(path)}must be {_KINDS.get(kinds[0], kinds[0].__name__)}, is {_shown(node)}")
            return None
        if isinstance(found, str) and encodable(found) != found:
            self.wrong(node, f"{_at(path)}{_SURROGATE}")
            return None
        return found

    def message(
        self,
        node: yaml.Node,
        path: str,
        descriptor: Descriptor,
        beside: Mapping[str, Callable[[yaml.Node, str], Any]] | None = None,
    ) -> dict[str, Any]:
        """Return the fields of a message that a node sets; see `to_run` for the form.

        Fields that only the coordinator fills in are unknown keys.

        Args:
            node: The node.
            path: Path of the node.
            descriptor: Type of the message.
            beside: Further keys, each with the function that reads its value.
        """
        hidden = FILLED_IN.get(descriptor.name, ())
        known = {field.name: field for field in descriptor.fields if field.name not in hidden}
        others, found = beside or {}, {}
        for key, inner in self.items(node, path, [*known, *others]):
            at = join(path, key)
            value = others[key](inner, at) if key in others else self._field(inner, at, known[key])
            if value is not None:
                found[key] = value
        return found

    def rounds(self, node: yaml.Node, path: str) -> dict[str, Any] | None:
        """Return the fields of a RoundSeries: a number of rounds, or a mapping."""
        if isinstance(node, yaml.ScalarNode):
            number = self.scalar(node, path, pb.RoundSeries.DESCRIPTOR.fields_by_name["number"])
            return None if number is None else {"number": number}
        return self.message(node, path, pb.RoundSeries.DESCRIPTOR)

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
        return self.scalar(node, path, field)

    def _texts(self, node: yaml.Node, path: str) -> list[str]:
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(node, f"{path}: must be a list, is {_shown(node)}")
            return []
        return [text for inner in node.value if (text := self.value(inner, path, str)) is not None]

    def scalar(self, node: yaml.Node, path: str, field: FieldDescriptor) -> Any:
        """Return the value of a message's field that is no message. Record a value that it cannot hold, return None."""
        if field.cpp_type in _NUMBERS:
            amount = self.value(node, path, (float, int))
            if amount is not None and not abs(amount) <= sys.float_info.max:  # true for NaN
                why = f"{amount} is too large" if isinstance(amount, int) else f"must be a number, is {_shown(node)}"
                self.wrong(node, f"{path}: {why}")
                return None
            return amount
        if field.cpp_type in _INTEGERS:
            number = self.value(node, path, int)
            if number is not None and abs(number) > _LARGEST[field.cpp_type]:
                self.wrong(node, f"{path}: {number} is too large")
                return None
            return number
        return self.value(node, path, bool if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else str)


_KINDS: Mapping[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


def join(path: str, key: str) -> str:
    """Append a key to a path."""
    return f"{path}.{key}" if path else key


def line_of(path: str, lines: Mapping[str, int]) -> int | None:
    """Return the line of a path or, if it has none, of the nearest path that contains it."""
    while path not in lines:
        if not any(mark in path for mark in ".["):
            return None
        path = path[: max(path.rfind("."), path.rfind("["))]
    return lines[path]


def nearest(name: str, known: Collection[str]) -> str:
    """Return the end of an "unknown ..." message: the nearest known name, then all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    return f"{meant} valid: {', '.join(known) or 'none'}"


def _properties(pipeline: api.Pipeline) -> dict[str, list[str]]:
    """Return the properties that each writing stage draws, by stage."""
    writing = [stage for stage in pipeline.stages if stage.role == api.STAGE_ROLE_WRITING]
    return {stage.name: [draw.name for draw in stage.properties] for stage in writing}


def _at(path: str) -> str:
    return f"{path}: " if path else ""


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return encodable(repr(node.value))
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


@dataclass(frozen=True)
class RunFile:
    """Settings of a run file."""

    what: str = ""
    """The file's name in messages: "--config mine.yaml"."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings in the form that `to_run` takes."""
    rounds: Mapping[str, Any] | None = None
    """Fields of a RoundSeries, or None."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Line of each key, by its path: "stages.concepts.attempts"."""


def read_run(what: str, path: Path, pipeline: api.Pipeline | None = None) -> RunFile:
    """Read a run file.

    Args:
        what: The option that names the file, for messages: "--config".
        path: The file.
        pipeline: The run's pipeline, whose stages and properties may be set. None: not known yet.

    Raises:
        Failure: The file cannot be read or has invalid keys or values. The message lists each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise Failure(f"{what}: cannot read {path}: {error}") from None
    reader = Reader(f"{what} {path}", text, pipeline)
    beside = {"rounds": reader.rounds}
    found = {} if reader.root is None else reader.message(reader.root, "", pb.Run.DESCRIPTOR, beside)
    reader.check()
    return RunFile(f"{what} {path}", found, found.pop("rounds", None), reader.lines)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two configurations key by key; `over` wins, and lists are replaced."""
    found = dict(under)
    for key, value in over.items():
        there = found.get(key)
        found[key] = merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return found


def to_run(given: Mapping[str, Any]) -> pb.Run:
    """Return a configuration, in the form that `Reader.message` returns, as a Run message.

    Stages and properties are sorted by name; the coordinator puts them into the pipeline's order.
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
    """Return a Run message in the form of a run file, without fields that the coordinator fills in."""
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
