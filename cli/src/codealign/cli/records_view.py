"""Show one record in full: envelope, body with highlighted code, and provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.cli.enums import value_name
from codealign.cli.judgement_view import judgement_view
from codealign.cli.lineage import kind_name, verdict_name, verdict_text
from codealign.cli.terminal import duration, printable, size
from codealign.common.records import body

CODE_FIELDS = frozenset({"code", "tests", "solution"})
"""Fields that hold Python source."""

_MAX_COLOURED = 100_000
"""Characters of source that are highlighted: the store holds megabytes, which take minutes."""


def record_view(record: pb.Record) -> RenderableType:
    """Return everything about a record."""
    facts = facts_table(
        {
            "id": record.id,
            "kind": kind_name(record.kind),
            "parents": " ".join(record.parents),
            "attempt": str(record.attempt) if record.attempt or record.parents else "",
            "key": record.key,
            "configuration": record.stage_config_id,
            "content": record.content_hash,
        }
    )
    parts: list[RenderableType] = [facts]
    message = body(record)
    if record.WhichOneof("body") == "verdict":
        parts.append(Rule("verdict", align="left", style="dim"))
        parts.append(result_view(record.verdict.result))
    elif record.WhichOneof("body") == "trial":
        executed = "with the tests of the second parent" if len(record.parents) > 1 else "called with inputs"
        parts.append(Rule(f"the first parent, {executed}", align="left", style="dim"))
        parts.append(result_view(record.trial.result))
    elif record.WhichOneof("body") == "judgement":
        parts.append(Rule("judgement", align="left", style="dim"))
        parts += list(judgement_view(record))
        if record.judgement.tests:
            parts.append(Rule("tests, with those that CodeAlign added", align="left", style="dim"))
            parts.append(_source(record.judgement.tests))
    elif message is not None:
        parts += list(_fields(message))
    else:
        parts.append(Text("this client does not know the record's kind: update codealign-cli", style="yellow"))
    if record.HasField("provenance"):
        parts.append(Rule("provenance", align="left", style="dim"))
        parts += list(_fields(record.provenance))
    return Group(*parts)


def facts_table(facts: dict[str, str]) -> Table:
    """Return names and values in two columns, without empty values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, Text(printable(value)))
    return table


def _fields(message: Message) -> Iterator[RenderableType]:
    """Yield short fields as a table, then long texts each under a rule, with code highlighted."""
    texts = field_texts(message)
    short = {name: text for name, text in texts.items() if not is_long(text)}
    if short:
        yield facts_table(short)
    for name, text in texts.items():
        if is_long(text):
            yield Rule(name, align="left", style="dim")
            yield _source(text) if name in CODE_FIELDS else Text(printable(text))


def is_long(text: str) -> bool:
    """Return whether a text needs space of its own."""
    return "\n" in text or len(text) > 100


def field_texts(message: Message) -> dict[str, str]:
    """Return the fields of a message that are set, as text."""
    found: dict[str, str] = {}
    for descriptor, value in message.ListFields():
        if isinstance(value, Message):
            text = json_format.MessageToJson(value, preserving_proto_field_name=True, indent=2)
            text = text.strip('"') if "\n" not in text else text
        elif isinstance(value, str):
            text = value
        elif isinstance(value, Mapping):
            text = ", ".join(f"{key} {_value(value[key])}" for key in sorted(value))
        elif descriptor.is_repeated:
            text = (
                "\n".join(str(item) for item in value) if descriptor.name == "imports" else ", ".join(map(str, value))
            )
        elif descriptor.enum_type is not None:
            named = descriptor.enum_type.values_by_number.get(value)
            text = named.name.split("_", 1)[-1].lower() if named else str(value)
        else:
            text = str(value)
        found[descriptor.name] = text
    return found


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _source(code: str) -> RenderableType:
    return code_view(code) if len(code) <= _MAX_COLOURED else Text(printable(code))


def code_view(code: str, failing_line: int = 0) -> Syntax:
    """Return highlighted Python source, with the failing line marked."""
    return Syntax(
        printable(code),
        "python",
        theme="ansi_dark",
        background_color="default",
        word_wrap=True,
        line_numbers=bool(failing_line),
        highlight_lines={failing_line} if failing_line else None,
    )


def result_view(result: sandbox.Result) -> RenderableType:
    """Return an execution result: verdict, evidence, output streams."""
    facts = facts_table(result_facts(result))
    parts: list[RenderableType] = [verdict_text(result), facts]
    for name, output in (("stdout", result.stdout), ("stderr", result.stderr)):
        if output.total_bytes:
            cut = f", the first {size(len(output.data))} kept" if output.truncated else ""
            parts.append(Rule(f"{name} ({size(output.total_bytes)}{cut})", align="left", style="dim"))
            parts.append(Text(printable(output.data.decode(errors="replace")).rstrip("\n")))
    return Group(*parts)


def result_facts(result: sandbox.Result) -> dict[str, str]:
    """Return the facts of an execution result besides its verdict and its output, without empty ones."""
    ended = f"signal {result.signal}" if result.signal else ""
    if result.HasField("exit_code"):
        ended = f"exit code {result.exit_code}"
    repeated = [verdict_name(verdict) for verdict in result.run_verdicts]
    facts = {
        "exception": result.exception,
        "failing line": f"{result.failing_source}:{result.failing_line}" if result.failing_line else "",
        "assertions": f"{result.assertions_executed} executed, {result.assertions_total} in the tests",
        "ended with": ended,
        "runs": ", ".join(repeated),
        "wall time": duration_ms(result.wall_seconds),
        "CPU time": duration_ms(result.cpu_seconds),
        "peak memory": size(result.peak_memory_bytes),
        "queued": duration_ms(result.queue_seconds),
        "isolation": _isolation(result.isolation),
        "runner": result.runner,
        "image": result.image_digest,
    }
    return {name: text for name, text in facts.items() if text}


def _isolation(value: sandbox.Isolation.ValueType) -> str:
    return value_name(sandbox.Isolation.DESCRIPTOR, value).lower()


def duration_ms(seconds: float) -> str:
    """Format seconds; short durations in milliseconds."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)
