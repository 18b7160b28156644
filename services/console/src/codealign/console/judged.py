"""The judgement that a record's page shows, and trials in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.family import Family
from codealign.cli.judgements import cut
from codealign.cli.report.judged import JudgedView, judged_view
from codealign.console.reading import Reader
from codealign.console.texts import record_url

MOST_RESPONSES = 100
"""Responses of a judgement that are read in addition to those around the record."""
MOST_CALLS = 100
"""Calls of a trial that are shown."""
_CALL = re.compile(rb"^[0-9a-f]{32} (\[.*\])$", re.MULTILINE)
"""A line of the program that observes an answer. The answer may write such lines too."""
_MAX_OUTPUT = 1_000_000


@dataclass(frozen=True)
class Judged:
    """A judgement on a page."""

    view: JudgedView
    url: str
    """Address of the judgement. Empty: it is the page's own record."""


async def find(reader: Reader, record: pb.Record, family: Family | None, run: str) -> Judged | None:
    """Return the judgement that a record is, that a row refers to, or that compares a response; None if there is none.

    Args:
        reader: Reads what the family lacks.
        record: The record.
        family: What is around it. None: unknown.
        run: The run to which addresses are restricted, or "".
    """
    known = dict(family.records) if family is not None else {}
    judgement = record if record.HasField("judgement") else await _about(reader, record, known)
    if judgement is None or not judgement.HasField("judgement"):
        return None
    missing = [parent for parent in judgement.parents[:MOST_RESPONSES] if parent not in known]
    known |= await _get(reader, missing)
    view = judged_view(judgement, known.values(), lambda record_id: record_url(record_id, run))
    return Judged(view, "" if judgement is record else record_url(judgement.id, run))


async def _about(reader: Reader, record: pb.Record, known: Mapping[str, pb.Record]) -> pb.Record | None:
    if record.HasField("example") and (wanted := record.example.judgement_id):
        return known.get(wanted) or (await _get(reader, [wanted])).get(wanted)
    if record.HasField("response"):
        return _of_most_attempts(
            each for each in known.values() if each.HasField("judgement") and record.id in each.parents
        )
    return None


def _of_most_attempts(judgements: Iterable[pb.Record]) -> pb.Record | None:
    return max(judgements, key=lambda each: (len(each.parents), each.id), default=None)


async def _get(reader: Reader, ids: list[str]) -> dict[str, pb.Record]:
    if not ids:
        return {}
    answer = await reader.call(reader.clients.dataset.Get, ds.GetRequest(ids=ids))
    return {record.id: record for record in answer.records}


def trial_words(record: pb.Record, known: Mapping[str, pb.Record]) -> str:
    """Return what a trial executed: "answer 1 with the tests of answer 2"; "" for other records."""
    if not record.HasField("trial"):
        return ""
    answer, *others = (_name(parent, known) for parent in record.parents[:2])
    return f"{answer} with the tests of {others[0]}" if others else f"{answer}, called with inputs"


def _name(response: str, known: Mapping[str, pb.Record]) -> str:
    found = known.get(response)
    return f"answer {found.attempt}" if found is not None else f"answer {response[:12]}"


def calls(record: pb.Record) -> list[tuple[str, str]]:
    """Return what the calls of a trial at inputs did, as its program wrote it: the input's number, and the outcome.

    The answer shares the process with the program that observes it, so it may have written anything.
    """
    if not record.HasField("trial") or len(record.parents) > 1:
        return []
    found: list[tuple[str, str]] = []
    for match in _CALL.finditer(record.trial.result.stdout.data[:_MAX_OUTPUT]):
        try:
            told = json.loads(match.group(1))
        except (ValueError, RecursionError):
            continue
        match told:
            case ["input", int(number), {"kind": str(kind), "text": str(text), **rest}]:
                beside = [name for name in ("printed", "changed") if rest.get(name)]
                found.append((str(number)[:6], cut(" ".join([kind, text, *(f"({name})" for name in beside)]))))
        if len(found) == MOST_CALLS:
            break
    return found
