"""One published row with everything that it came from."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.clients import Clients
from codealign.coordinator.ground.store import PATIENT, RunStore

_ORDER = (
    pb.KIND_SEED,
    pb.KIND_CONCEPT_SET,
    pb.KIND_INSTRUCTION,
    pb.KIND_RESPONSE,
    pb.KIND_VERDICT,
    pb.KIND_DECISION,
    pb.KIND_EXAMPLE,
)


async def follow(clients: Clients, store: RunStore) -> tuple[list[pb.Record], list[pb.Record]]:
    """The row with the smallest id.

    Returns:
        Its records, seed first and example last, and those that they refer to; both empty where there is no row.
    """
    request = dataset.ScanRequest(kind=pb.KIND_EXAMPLE, collection=store.collection, page_size=1)
    examples = (await clients.call(clients.dataset.Scan, request, retry=PATIENT)).records
    if not examples:
        return [], []
    asked = dataset.LineageRequest(
        id=examples[0].id, direction=dataset.DIRECTION_ANCESTORS, collection=store.collection
    )
    lineage = await clients.call(clients.dataset.Lineage, asked, retry=PATIENT)
    records = [*lineage.records, *await _choice(store, lineage.records)]
    references = {record.id: record for record in lineage.references}
    missing = {record.stage_config_id for record in records} - references.keys() - {""}
    references.update(await store.get(sorted(missing)))
    trail = sorted((record for record in records if record.kind in _ORDER), key=lambda each: _ORDER.index(each.kind))
    return trail, [references[key] for key in sorted(references)]


async def _choice(store: RunStore, ancestors: Sequence[pb.Record]) -> list[pb.Record]:
    """Why this response and no other: the decisions of this run on it."""
    found: list[pb.Record] = []
    for record in ancestors:
        if record.kind == pb.KIND_RESPONSE:
            request = dataset.ScanRequest(kind=pb.KIND_DECISION, parent_id=record.id, collection=store.collection)
            found += [decision async for decision in store.scan(request)]
    return found
