"""What the comparison of attempts found in a run, from a sample of its judgements and rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground.store import RunStore

SAMPLE = 500
"""Judgements and rows that are read: ids are hashes, so that those with the lowest are a random sample."""
STEPS = 10
"""Steps of equal width in which shares are counted; 100% is one of its own."""
_LEGIBLE = 8
"""Attempts up to which a judgement is shown rather than one of more."""


async def read(store: RunStore, counts: Sequence[ds.RecordCount]) -> api.AgreementReport | None:
    """Return what comparisons found, or None if there are none.

    Args:
        store: Store of the run.
        counts: Numbers of the run's records.
    """
    numbers = Counter[int]()
    for each in counts:
        numbers[each.kind] += each.count
    if not numbers[pb.KIND_JUDGEMENT]:
        return None
    judgements = latest(await _sample(store, pb.KIND_JUDGEMENT))
    rows = [row for row in await _sample(store, pb.KIND_EXAMPLE) if row.example.judgement_id]
    report = summarize(judgements, rows)
    report.sample = SAMPLE
    report.all_judgements, report.all_rows = numbers[pb.KIND_JUDGEMENT], numbers[pb.KIND_EXAMPLE]
    if (shown := most_telling(judgements, {row.example.judgement_id for row in rows})) is not None:
        report.shown.CopyFrom(shown)
        report.shown_records.extend(await _about(store, shown))
    return report


async def _sample(store: RunStore, kind: pb.Kind.ValueType) -> list[pb.Record]:
    found: list[pb.Record] = []
    async for record in store.scan(ds.ScanRequest(kind=kind, collection=store.collection, page_size=SAMPLE)):
        found.append(record)
        if len(found) == SAMPLE:
            break
    return found


async def _about(store: RunStore, judgement: pb.Record) -> list[pb.Record]:
    """Return the responses that a judgement compares, their instruction, and the row that the best one became."""
    responses = await store.get(judgement.parents)
    instructions = await store.get({each.parents[0] for each in responses.values() if each.parents})
    found = [*responses.values(), *(each for each in instructions.values() if each.kind == pb.KIND_INSTRUCTION)]
    for response in judgement.parents:
        request = ds.ScanRequest(kind=pb.KIND_EXAMPLE, parent_id=response, collection=store.collection)
        found += [row async for row in store.scan(request) if row.example.judgement_id == judgement.id]
    return found


def latest(judgements: Iterable[pb.Record]) -> list[pb.Record]:
    """Return one judgement for each instruction: that of most attempts.

    A run that found another's judgement of the first attempts, and then drew more, has both.
    """
    found: dict[str, pb.Record] = {}
    for each in judgements:
        known = found.setdefault(each.parents[0], each)
        if len(each.parents) > len(known.parents):
            found[each.parents[0]] = each
    return list(found.values())


def summarize(judgements: Iterable[pb.Record], rows: Iterable[pb.Record]) -> api.AgreementReport:
    """Return the numbers of a report. All rows have a judgement."""
    report = api.AgreementReport()
    for each in judgements:
        report.instructions += 1
        report.contested += each.judgement.is_contested
        report.outvoted += len(outvoted(each.judgement))
    shares, scores = [], []
    for row in rows:
        report.rows += 1
        report.rows_with_added_tests += bool(row.example.added_tests)
        report.class_sizes[row.example.class_size] += 1
        shares.append(row.example.tests_share)
        if row.example.HasField("mutation_score"):
            scores.append(row.example.mutation_score)
    report.tests_shares.extend(_histogram(shares))
    report.mutation_scores.extend(_histogram(scores))
    return report


def _histogram(shares: Sequence[float]) -> list[int]:
    """Count shares by steps; empty if there are none."""
    counts = Counter(min(STEPS, max(0, int(share * STEPS))) for share in shares)
    return [counts[step] for step in range(STEPS + 1)] if shares else []


def outvoted(found: pb.Judgement) -> list[int]:
    """Return the numbers of the attempts that pass their own tests, but are outside the winning class."""
    if found.is_contested:
        return []
    return [
        number for number, each in enumerate(found.attempts) if each.class_number != 1 and _passes_own(found, number)
    ]


def _passes_own(found: pb.Judgement, number: int) -> bool:
    """Return whether a response passes its own tests, even if it contradicts what they compute for another input."""
    if not found.pairs:
        return not found.attempts[number].contradicts_itself
    own = found.pairs[number * (len(found.attempts) + 1)]
    return own in (pb.PAIR_RESULT_PASSED, pb.PAIR_RESULT_CONTRADICTS)


def most_telling(judgements: Iterable[pb.Record], with_row: Iterable[str]) -> pb.Record | None:
    """Return the judgement that shows most.

    Preferred is one that outvotes a pass and says at which input, then one that led to a row, that has a larger winning
    class, more classes, and stronger tests.

    Args:
        judgements: The judgements.
        with_row: Ids of those that led to a row.
    """
    rows = frozenset(with_row)

    def rank(record: pb.Record) -> tuple[bool, bool, bool, int, int, bool]:
        found = record.judgement
        return (
            bool(outvoted(found) and found.telling_inputs),
            record.id in rows,
            len(found.attempts) <= _LEGIBLE,
            sum(each.class_number == 1 for each in found.attempts),
            max((each.class_number for each in found.attempts), default=0),
            bool(found.tests),
        )

    known: Mapping[str, pb.Record] = {each.id: each for each in judgements}
    ordered = [known[record_id] for record_id in sorted(known)]
    return max(ordered, key=rank, default=None)
