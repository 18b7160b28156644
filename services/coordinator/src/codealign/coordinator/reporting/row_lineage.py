"""Lineage of one published row, found through the parents of its records, for any pipeline."""

from __future__ import annotations

from collections.abc import Mapping

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground.store import RunStore

_REFERRED_TO = (pb.KIND_COMPLETION, pb.KIND_PROMPT_PREFIX, pb.KIND_STAGE_CONFIG, pb.KIND_IMPORT)
_MOST_GENERATIONS = 64
"""Maximum depth of a lineage, deeper than any pipeline. A deeper lineage is truncated."""


async def follow(store: RunStore) -> tuple[list[pb.Record], list[pb.Record]]:
    """Return the lineage of the row with the smallest id.

    Args:
        store: Store of the run.

    Returns:
        The row's records, seed first and row last, each verdict and decision after its subject; and the records that
        they refer to: the completions that they were parsed from, the completions' prompt prefixes, the configurations
        of all, and an imported row's Import. Both are empty if there is no row.
    """
    row = await _first_row(store)
    if row is None:
        return [], []
    found = await _ancestors(store, row)
    for record in [record for record in found.values() if record.kind not in _REFERRED_TO and record.id != row.id]:
        request = dataset.ScanRequest(kind=pb.KIND_DECISION, parent_id=record.id, collection=store.collection)
        found.update({decision.id: decision async for decision in store.scan(request)})
    if any(record.kind == pb.KIND_JUDGEMENT for record in found.values()):
        found.update(await _own_verdicts(store, found))
    named = {record.stage_config_id for record in found.values()} | {row.example.imported_from}
    found.update(await store.get(sorted(named - found.keys() - {""})))
    ranks: dict[str, int] = {}

    def place(record: pb.Record) -> tuple[bool, int, bool, str]:
        return record.id == row.id, _rank(record.id, found, ranks), record.kind == pb.KIND_DECISION, record.id

    line = sorted((record for record in found.values() if record.kind not in _REFERRED_TO), key=place)
    referred = sorted(record.id for record in found.values() if record.kind in _REFERRED_TO)
    return line, [found[record_id] for record_id in referred]


async def _first_row(store: RunStore) -> pb.Record | None:
    request = dataset.ScanRequest(kind=pb.KIND_EXAMPLE, collection=store.collection, page_size=1)
    async for record in store.scan(request):
        return record
    return None


async def _ancestors(store: RunStore, row: pb.Record) -> dict[str, pb.Record]:
    """Return a row and all its ancestors except runs, by id; with its judgement and all that this compared."""
    found = {row.id: row}
    wanted = {*row.parents, row.example.judgement_id} - {""}
    for _ in range(_MOST_GENERATIONS):
        wanted -= found.keys()
        if not wanted:
            break
        there = await store.get(sorted(wanted))
        there = {record_id: record for record_id, record in there.items() if record.kind != pb.KIND_RUN}
        found.update(there)
        wanted = {parent for record in there.values() for parent in record.parents}
    return found


async def _own_verdicts(store: RunStore, found: Mapping[str, pb.Record]) -> dict[str, pb.Record]:
    """Return the verdicts on the attempts that a judgement compared, with their own tests."""
    verdicts: dict[str, pb.Record] = {}
    for record in [record for record in found.values() if record.kind == pb.KIND_RESPONSE]:
        request = dataset.ScanRequest(kind=pb.KIND_VERDICT, parent_id=record.id, collection=store.collection)
        own = [each async for each in store.scan(request)]
        judged = {parent for each in own for parent in each.parents[1:] if parent in found}
        verdicts |= {each.id: each for each in own if not judged.intersection(each.parents)}
    return verdicts


def _rank(record_id: str, found: Mapping[str, pb.Record], ranks: dict[str, int]) -> int:
    """Return the length of the longest chain of ancestors of a record."""
    if record_id not in ranks:
        ranks[record_id] = 0  # guards against cycles in a corrupt store
        above = [parent for parent in found[record_id].parents if parent in found]
        items = [parent for parent in above if found[parent].kind not in _REFERRED_TO]
        ranks[record_id] = max((1 + _rank(parent, found, ranks) for parent in items), default=0)
    return ranks[record_id]
