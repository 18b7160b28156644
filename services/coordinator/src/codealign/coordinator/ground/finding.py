"""Look-up of a run or an experiment by what people call it."""

from __future__ import annotations

from collections.abc import Mapping

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import InvalidArgument, NotFound
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment
from codealign.coordinator.ground.ports import Dataset

MIN_PREFIX = 6


async def find(
    dataset: Dataset, assigned: Mapping[str, Assignment], kind: pb.Kind.ValueType, text: str, command: str
) -> pb.Record:
    """Return a record by its id, its id's first digits, or its name.

    A subject of this coordinator is found by its id even while the store is unavailable.

    Args:
        dataset: The store.
        assigned: Subjects whose leases this coordinator holds, by id.
        kind: KIND_RUN or KIND_EXPERIMENT, whose bodies have a name.
        text: What to look for.
        command: The command that lists all such records, for messages.

    Raises:
        InvalidArgument: The text is empty.
        NotFound: No record, or several, match.
    """
    what = records.BODY_OF_KIND[kind]
    if not text:
        raise InvalidArgument(what, "must be an id, an id's first digits, or a name")
    if (assignment := assigned.get(text)) and assignment.subject.kind == kind:
        return assignment.subject
    if records.is_record_id(text):
        there = (await dataset.get(ds.GetRequest(ids=[text]))).records
        if there and there[0].kind == kind:
            return there[0]
    matches = [
        record
        for record in await requests.scan(dataset, ds.ScanRequest(kind=kind))
        if getattr(record, what).name == text or (len(text) >= MIN_PREFIX and record.id.startswith(text))
    ]
    if len(matches) != 1:
        known = f"no {what} matches" if not matches else f"{len(matches)} {what}s match"
        raise NotFound(f"{known} {text!r}; see `{command}` for the ids")
    return matches[0]
