"""Records: a list with filters, one record with everything around it, and a text as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.failures import Failure
from codealign.cli.family import is_record_id, record_digits
from codealign.cli.report.agreement import COLUMNS
from codealign.console import judged, lineage
from codealign.console.pages.runs import kind_counts
from codealign.console.reading import Gathering, NotThere, Reader
from codealign.console.rendering import gather, page
from codealign.console.texts import excerpt, summary
from codealign.console.texts import raw as raw_text

PAGE = 30
FILTERS = ("collection", "kind", "stage", "label", "outcome", "category", "text")
CATEGORIES = ("function", "class", "program")
_OUTCOMES = {"kept": pb.Decision.OUTCOME_KEPT, "dropped": pb.Decision.OUTCOME_DROPPED}
_CATEGORIZED = (pb.KIND_INSTRUCTION, pb.KIND_EXAMPLE)
_ABOUT = (pb.KIND_VERDICT, pb.KIND_DECISION, pb.KIND_REJECTION, pb.KIND_RESPONSE)
"""Kinds that are listed with the record that they are about."""


@dataclass(frozen=True)
class Item:
    """A record in a list."""

    record: pb.Record
    badge: str
    tone: str
    text: str
    about: str


@dataclass(frozen=True)
class Choice:
    """A value of a filter."""

    value: str
    title: str
    number: int


async def records(request: Request) -> Response:
    """List a collection's records, newest first."""
    gathered = gather(request)
    given = {name: request.query_params.get(name, "").strip() for name in FILTERS}
    collection, kind = given["collection"], _kind(given["kind"])
    if not collection:
        raise NotThere("The address names no collection: choose one under Data.")
    counted = await gathered.part(
        lambda reader: reader.call(reader.clients.dataset.Count, ds.CountRequest(collection=collection))
    )
    counts = counted.counts if counted else ()
    of_kind = [one for one in counts if one.kind == kind]
    configs = await _stage_names(gathered, of_kind)
    question = ds.BrowseRequest(
        collection=collection,
        kind=kind,
        labels=[given["label"]] if given["label"] else [],
        stage_config_id=given["stage"],
        outcome=_outcome(given["outcome"], kind),
        category=given["category"],
        text=given["text"],
        page_size=PAGE,
        page_token=request.query_params.get("page", ""),
    )
    found = await gathered.part(lambda reader: reader.call(reader.clients.dataset.Browse, question), named=True)
    listed = found.records if found else ()
    around = await _around(gathered, listed) if listed else {}
    here = {name: value for name, value in given.items() if value}
    matching = [one for one in of_kind if _selected(one, given)]
    return page(
        request,
        "records",
        gathered,
        section="runs" if is_record_id(collection) else "data",
        title="Records",
        live=False,
        given=given,
        kind=kind,
        collection=collection,
        run=collection if is_record_id(collection) else "",
        kinds=kind_counts(collection, counts),
        stages=_choices((configs.get(one.stage_config_id, ""), one.stage_config_id, one.count) for one in of_kind),
        labels=_choices((one.label, one.label, one.count) for one in of_kind),
        categories=CATEGORIES if kind in _CATEGORIZED else (),
        outcomes=tuple(_OUTCOMES) if kind == pb.KIND_DECISION else (),
        items=[_item(record, around) for record in listed],
        matching=sum(one.count for one in matching),
        counted=counted is not None and found is not None,
        exact=not given["text"] and not given["category"],
        examined=found.examined if found else 0,
        next=f"/records?{urlencode({**here, 'page': found.next_page_token})}"
        if found and found.next_page_token
        else "",
        newest=f"/records?{urlencode(here)}" if question.page_token else "",
    )


def _kind(name: str) -> pb.Kind.ValueType:
    if not name:
        return pb.KIND_EXAMPLE
    value = pb.Kind.DESCRIPTOR.values_by_name.get(f"KIND_{name.upper()}")
    if value is None or not value.number:
        raise NotThere(f"There are no records of kind {name[:40]!r}: choose one of the links to kinds.")
    return pb.Kind.ValueType(value.number)


def _outcome(name: str, kind: pb.Kind.ValueType) -> pb.Decision.Outcome.ValueType:
    if name and (kind != pb.KIND_DECISION or name not in _OUTCOMES):
        raise NotThere("The filter outcome is for decisions, and must be kept or dropped.")
    return _OUTCOMES.get(name, pb.Decision.OUTCOME_UNSPECIFIED)


def _selected(one: ds.RecordCount, given: Mapping[str, str]) -> bool:
    return (
        given["label"] in ("", one.label)
        and given["stage"] in ("", one.stage_config_id)
        and given["outcome"] in ("", *(name for name, value in _OUTCOMES.items() if value == one.outcome))
    )


def _choices(found: object) -> list[Choice]:
    """Return the values of a filter with their numbers, most frequent first; none if there is nothing to choose."""
    numbers: dict[tuple[str, str], int] = {}
    for title, value, number in found:  # type: ignore[attr-defined]
        if title and value:
            numbers[title, value] = numbers.get((title, value), 0) + number
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return [Choice(value, title, number) for (title, value), number in ordered]


async def _stage_names(gathered: Gathering, counts: Sequence[ds.RecordCount]) -> dict[str, str]:
    ids = sorted({one.stage_config_id for one in counts if one.stage_config_id})[:200]
    found = await gathered.part(lambda reader: _get(reader, ids)) if ids else []
    return {record.id: record.stage_config.name for record in found or ()}


async def _get(reader: Reader, ids: Sequence[str]) -> list[pb.Record]:
    if not ids:
        return []
    return list((await reader.call(reader.clients.dataset.Get, ds.GetRequest(ids=ids))).records)


async def _around(gathered: Gathering, listed: Sequence[pb.Record]) -> dict[str, pb.Record]:
    """Return the records that the listed ones are about: an answer's task, a verdict's answer and its task."""
    found: dict[str, pb.Record] = {}
    wanted = {record.parents[0] for record in listed if record.kind in _ABOUT and record.parents}
    for _ in range(2):
        missing = sorted(wanted - found.keys())
        new = await gathered.part(lambda reader, ids=missing: _get(reader, ids)) if missing else []  # type: ignore[misc]
        found.update((record.id, record) for record in new or ())
        wanted = {record.parents[0] for record in new or () if record.kind == pb.KIND_RESPONSE and record.parents}
    return found


def _item(record: pb.Record, around: Mapping[str, pb.Record]) -> Item:
    badge, tone = lineage.badge(record)
    about = around.get(record.parents[0]) if record.parents else None
    text = summary(record)
    if record.kind == pb.KIND_VERDICT and about is not None:
        text = text or summary(about)
        about = around.get(about.parents[0]) if about.parents else None
    told = excerpt(summary(about)) if about is not None and record.kind in _ABOUT else ""
    return Item(record, badge, tone, excerpt(text), told)


async def record(request: Request) -> Response:
    """Show a record: its texts, where it comes from, and what was made of it."""
    gathered, wanted = gather(request), request.path_params["record"]
    run = request.query_params.get("run", "")
    run = run if is_record_id(run) else ""
    found = await gathered.part(lambda reader: _one(reader, wanted), named=True)
    if found is None:
        return page(
            request, "message", gathered, section="data", title="Record", status=503, message="It cannot be read now."
        )
    family = await gathered.part(lambda reader: lineage.family(reader, found, run))
    view = lineage.view(family, found, run)
    compared = await gathered.part(lambda reader: judged.find(reader, found, family, run))
    return page(
        request,
        "record",
        gathered,
        section="runs" if run else "data",
        title=f"{view.title} {found.id[:12]}",
        record=found,
        view=view,
        compared=compared,
        trial=judged.trial_words(found, family.records if family else {}),
        calls=judged.calls(found),
        columns=COLUMNS,
        run=run,
        truncated=family.truncated if family else False,
    )


async def _one(reader: Reader, wanted: str) -> pb.Record:
    """Return a record by its id or the beginning of its id.

    Raises:
        NotThere: There is none, or this is no id.
    """
    try:
        digits = record_digits(wanted[:40])
    except Failure as failure:
        raise NotThere(failure.message) from None
    request = ds.GetRequest(ids=[digits], allow_prefix=True)
    answer = await reader.call(reader.clients.dataset.Get, request)
    if not answer.records:
        raise NotThere(f"No record has the id {digits}.")
    return answer.records[0]


async def raw(request: Request) -> Response:
    """Return a text of a record as it is. Browsers show it as text, whatever it contains."""
    gathered, wanted = gather(request), request.path_params["record"]
    found = await gathered.part(lambda reader: _one(reader, wanted), named=True)
    if found is None:
        return Response("; ".join(gathered.problems), 503, media_type="text/plain; charset=utf-8")
    text = await asyncio.to_thread(raw_text, found, request.path_params["field"])
    if text is None:
        raise NotThere(f"Record {found.id[:12]} has no text of this name.")
    return Response(
        text,
        media_type="text/plain; charset=utf-8",
        headers={"Content-Security-Policy": "default-src 'none'; sandbox"},
    )
