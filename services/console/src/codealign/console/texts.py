"""Untrusted texts for pages: escaped, cut, with invisible characters made visible, and a link to the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from markupsafe import Markup

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.records_view import CODE_FIELDS, field_texts, is_long
from codealign.cli.report import listing
from codealign.cli.report.wording import judgement_words, pretty_json, visible
from codealign.cli.terminal import size
from codealign.common.records import body

SHOWN = 20_000
"""Characters of a text that a record's own page shows."""
GLANCED = 3_000
"""Characters of a text of a record around it."""
EXCERPT = 220
"""Characters of a record in a list."""

_PROSE = frozenset(
    {
        ("instruction", "text"),
        ("response", "answer"),
        ("response", "instruction"),
        ("example", "instruction"),
        ("example", "response"),
    }
)
_SKIPPED = frozenset({"losses", "lineage", "verdict_id"})
_IN_THE_MATRIX = frozenset({"attempts", "best", "mutants", "added_tests", "pairs", "telling_inputs"})
"""Fields of a judgement that its page shows otherwise."""


@dataclass(frozen=True)
class Shown:
    """A text of a record on a page."""

    label: str
    html: Markup
    note: str
    """What is left out, or ""."""
    raw: str
    """Address of the whole text, or "" if all of it is shown."""


def record_url(record_id: str, run: str = "") -> str:
    """Return the address of a record's page.

    Args:
        record_id: The record's id.
        run: Restricts what is derived from it to this run. Empty: all runs.
    """
    return f"/records/{quote(record_id, safe='')}" + (f"?{urlencode({'run': run})}" if run else "")


def records_url(collection: str, kind: pb.Kind.ValueType, **filters: str) -> str:
    """Return the address of a list of records."""
    name = pb.Kind.Name(kind).removeprefix("KIND_").lower()
    given = {"collection": collection, "kind": name, **{key: value for key, value in filters.items() if value}}
    return f"/records?{urlencode(given)}"


def excerpt(text: str, most: int = EXCERPT) -> str:
    """Return the beginning of a text in one line."""
    words = " ".join(text[: most * 4].split())
    return words if len(words) <= most and len(text) <= most * 4 else f"{words[:most].rstrip()} …"


def summary(record: pb.Record) -> str:
    """Return what a record says, for a list."""
    match record.WhichOneof("body"):
        case "seed":
            line = f":{record.seed.line}" if record.seed.line else ""
            return f"{record.seed.name}  {record.seed.path}{line}".lstrip()
        case "concept_set":
            return ", ".join(record.concept_set.concepts[:50])
        case "instruction":
            return record.instruction.text
        case "response":
            return record.response.instruction or record.response.code or record.response.answer
        case "verdict":
            return record.verdict.result.detail or record.verdict.result.exception
        case "trial":
            return record.trial.result.detail or record.trial.result.exception
        case "judgement":
            return judgement_words(record.judgement)
        case "example":
            return record.example.instruction
        case "rejection":
            return record.rejection.detail
        case "decision":
            return record.decision.detail
        case "completion":
            return record.completion.text
        case "prompt_prefix":
            return record.prompt_prefix.text
        case "evaluation_result":
            result = record.evaluation_result
            return f"{result.problem_id}: {'passed' if result.passed else 'failed'}"
        case "run":
            return record.run.name
        case "checkpoint":
            return record.checkpoint.artifact_url
        case "stage_config":
            return f"{record.stage_config.name} {record.stage_config.settings_json}"
    message = body(record)
    return "; ".join(field_texts(message).values()) if message is not None and message.ByteSize() < 10_000 else ""


def shown(record: pb.Record, most: int = SHOWN, place: str = "") -> list[Shown]:
    """Return the long texts of a record's body, in the contract's order, without a result: that is for `output`."""
    return [
        render(record.id, field, pretty_json(text) if field == "settings_json" else text, style, most, place=place)
        for field, text, style in _styled(record)
        if style != "plain" or is_long(text)
    ]


def brief(record: pb.Record) -> dict[str, str]:
    """Return the short texts of a record's body by name."""
    return {
        field.replace("_", " "): text
        for field, text, style in _styled(record)
        if style == "plain" and not is_long(text)
    }


def _styled(record: pb.Record) -> Iterator[tuple[str, str, str]]:
    message, name = body(record), record.WhichOneof("body")
    if message is None or name == "verdict":
        return
    for field, text in _texts(message):
        if name == "judgement" and field in _IN_THE_MATRIX:
            continue
        style = "code" if field in CODE_FIELDS else "prose" if (name, field) in _PROSE else "plain"
        yield field, text, style


def _texts(message: Message) -> Iterator[tuple[str, str]]:
    """Yield the fields that are texts of their own, and those that are facts as one text."""
    for descriptor, value in message.ListFields():
        if descriptor.name in _SKIPPED or isinstance(value, sb.Result):
            continue
        if isinstance(value, str):
            yield descriptor.name, value
            continue
        single = type(message)()
        if descriptor.is_repeated:
            getattr(single, descriptor.name).MergeFrom(value)
        elif isinstance(value, Message):
            getattr(single, descriptor.name).CopyFrom(value)
        else:
            setattr(single, descriptor.name, value)
        yield descriptor.name, field_texts(single).get(descriptor.name, "")


def output(record_id: str, result: sb.Result, path: str, most: int = SHOWN, place: str = "") -> list[Shown]:
    """Return what a program wrote.

    Args:
        record_id: Id of the record that holds the result.
        result: The result.
        path: Path of the result in the record's body.
        most: Maximum number of characters of each text.
        place: As for `render`.
    """
    found = []
    for name, stream in (("stdout", result.stdout), ("stderr", result.stderr)):
        if stream.total_bytes or stream.data:
            text = stream.data.decode(errors="replace")
            one = render(record_id, f"{path}.{name}.data", text, "plain", most, label=name, place=place)
            cut = f"the sandbox kept {size(len(stream.data))} of {size(stream.total_bytes)}" if stream.truncated else ""
            found.append(Shown(one.label, one.html, "; ".join(filter(None, (one.note, cut))), one.raw))
    return found


def render(record_id: str, path: str, text: str, style: str, most: int, *, label: str = "", place: str = "") -> Shown:
    """Return a text as HTML.

    Args:
        record_id: Id of the record that holds it.
        path: Path of its field in the record's body.
        text: The whole text.
        style: "code" (Python), "prose" (paragraphs and code) or "plain".
        most: Maximum number of characters.
        label: Heading. Empty: the field's name.
        place: Where on the page it is, so that screen readers can tell equal texts apart. Empty: its record's own.
    """
    label = label or path.replace("_", " ")
    region = f"{label}, {place or record_id[:12]}"
    part = text[:most]
    html = {"code": listing.code, "prose": listing.markdown, "plain": listing.plain}[style](part, region)
    cut = len(text) > most
    return Shown(
        label,
        html,
        f"the first {most:,} of {len(text):,} characters" if cut else "",
        f"/records/{quote(record_id)}/raw/{quote(path)}" if cut else "",
    )


def raw(record: pb.Record, path: str) -> bytes | None:
    """Return a field of a record's body as bytes, or None if there is no such text.

    Args:
        record: The record.
        path: Field names, joined by dots.
    """
    message = body(record)
    value: object = message
    for name in path.split("."):
        if not isinstance(value, Message) or name not in value.DESCRIPTOR.fields_by_name:
            return None
        value = getattr(value, name)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) and message is not None:
        value = dict(_texts(message)).get(path)  # a list or a message, as the page shows it
    return value.encode() if isinstance(value, str) else None


def when(moment: Timestamp, form: str = "%Y-%m-%d %H:%M") -> str:
    """Format a time: "2026-11-29 07:30", or "" if it is not set or is no time."""
    try:
        return moment.ToDatetime().strftime(form) if moment.seconds else ""
    except (OverflowError, ValueError):
        return ""


def line(text: str) -> str:
    """Return an untrusted text in one line, with invisible characters made visible."""
    return " ".join(visible(text).split())
