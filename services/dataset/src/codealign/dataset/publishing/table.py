"""Rows of a published version: an example with its lineage, its verdict and its seed. Pure."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.errors import FailedPrecondition
from codealign.dataset.storage.rows import verdict_name

FORMAT = "codealign.version.v4"

_STEP = pa.struct([pa.field("stage", pa.string(), nullable=False), pa.field("id", pa.string(), nullable=False)])
# A change here changes the name of every version: then increase FORMAT as well.
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("tests", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("difficulty", pa.string(), nullable=False),
        pa.field("concepts", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False),
        pa.field("tests_in_instruction", pa.bool_(), nullable=False),
        pa.field("model_revision", pa.string(), nullable=False),
        pa.field("lineage", pa.list_(pa.field("item", _STEP, nullable=False)), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("verdict_id", pa.string(), nullable=False),
        pa.field("seed_code", pa.string(), nullable=False),
        pa.field("seed_path", pa.string(), nullable=False),
        pa.field("seed_line", pa.int32(), nullable=False),
        pa.field("seed_license", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("imported_from", pa.string(), nullable=False),
        # Null, or empty, if the attempts at the instruction were not compared.
        pa.field("attempts", pa.int32()),
        pa.field("class_size", pa.int32()),
        pa.field("tests_share", pa.float64()),
        pa.field("mutation_score", pa.float64()),
        pa.field("surviving_mutants", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False),
        pa.field("added_tests", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False),
    ]
)

NOT_EXECUTED = "NOT_EXECUTED"
"""Replaces the verdict in a version whose rows were never executed."""

# Rows in a row group, the unit of memory of readers and of the writer.
ROW_GROUP = 4096
# A row group ends earlier at this size: a row may have megabytes, and thousands of them would exhaust the memory.
ROW_GROUP_BYTES = 256 * 2**20

Row = dict[str, Any]


@dataclass(frozen=True)
class Admitted:
    """Rows that a version may contain."""

    verdicts: frozenset[int] = frozenset({sandbox_pb2.VERDICT_PASSED})
    """Allowed verdicts."""
    not_executed: bool = False
    """Only rows that were never executed, which have no verdict."""


PASSED_ALONE = Admitted()


def row_of(record: pb.Record, related: Mapping[str, pb.Record], admitted: Admitted) -> Row:
    """Return the row of an example.

    Args:
        record: The Example record.
        related: At least its verdict and the first record of its lineage, by id.
        admitted: Which rows may be published.

    Raises:
        FailedPrecondition: The row may not be published; the message names it and the reason.
    """
    example = record.example
    if not example.lineage:
        raise FailedPrecondition(
            f"example {record.id} has no lineage: an earlier release created it, or its pipeline does not record the "
            "origin of rows; create it again"
        )
    verdict = _not_executed(record) if admitted.not_executed else _verdict(record, related, admitted)
    seed = _seed(record, related)
    compared = bool(example.judgement_id)
    return {
        "id": record.id,
        "instruction": example.instruction,
        "response": example.response,
        "tests": example.tests,
        "category": example.category,
        "difficulty": example.difficulty,
        "concepts": list(example.concepts),
        "tests_in_instruction": example.tests_in_instruction,
        "model_revision": example.model_revision,
        "lineage": [{"stage": step.stage, "id": step.record_id} for step in example.lineage],
        "verdict": verdict,
        "verdict_id": example.verdict_id,
        "seed_code": seed.code,
        "seed_path": seed.path,
        "seed_line": seed.line,
        "seed_license": seed.license,
        "license": example.license,
        "imported_from": example.imported_from,
        "attempts": example.attempts if compared else None,
        "class_size": example.class_size if compared else None,
        "tests_share": example.tests_share if compared else None,
        "mutation_score": example.mutation_score if example.HasField("mutation_score") else None,
        "surviving_mutants": list(example.surviving_mutants),
        "added_tests": list(example.added_tests),
    }


def _not_executed(record: pb.Record) -> str:
    if record.example.verdict_id:
        raise FailedPrecondition(
            f"example {record.id} has a verdict ({record.example.verdict_id}), but the version is for rows that "
            "were never executed: publish it with the allowed verdicts instead"
        )
    return NOT_EXECUTED


def _verdict(record: pb.Record, related: Mapping[str, pb.Record], admitted: Admitted) -> str:
    example = record.example
    verdict = related.get(example.verdict_id)
    if verdict is None or verdict.kind != pb.KIND_VERDICT:
        raise FailedPrecondition(
            f"example {record.id} has no verdict (verdict_id {example.verdict_id or 'is empty'}): a row can only be "
            "published with an allowed verdict"
        )
    response_id = example.lineage[-1].record_id
    if response_id not in verdict.parents:
        raise FailedPrecondition(
            f"example {record.id}: verdict {verdict.id} belongs to {', '.join(verdict.parents) or 'no record'}, not "
            f"to its response {response_id}"
        )
    result = verdict.verdict.result
    if result.verdict not in admitted.verdicts:
        allowed = " or ".join(verdict_name(value) for value in sorted(admitted.verdicts))
        raise FailedPrecondition(
            f"example {record.id}: its verdict {verdict.id} is {verdict_name(result.verdict)}, not {allowed}"
        )
    if result.isolation != sandbox_pb2.ISOLATION_GVISOR:
        raise FailedPrecondition(
            f"example {record.id}: its verdict {verdict.id} was made without gVisor's isolation, so the example cannot "
            "be published; execute it again in an isolated sandbox"
        )
    return verdict_name(result.verdict)


def _seed(record: pb.Record, related: Mapping[str, pb.Record]) -> pb.Seed:
    first = record.example.lineage[0]
    root = related.get(first.record_id)
    if root is None:
        raise FailedPrecondition(
            f"example {record.id}: its lineage begins with a record that is not in the store ({first.stage} "
            f"{first.record_id})"
        )
    return root.seed  # empty if the pipeline does not begin with a seed


class TableWriter:
    """Writes rows to one Parquet file, deterministically, and hashes their content.

    The hash covers the rows as JSON rather than the file, so that a version keeps its name when a later Parquet library
    compresses better.

    Args:
        path: The file to write.
    """

    def __init__(self, path: Path) -> None:
        self._digest = hashlib.sha256(f"{FORMAT}\n".encode())
        self._rows: list[Row] = []
        self._size = 0
        self._writer = pq.ParquetWriter(
            path,
            SCHEMA,
            version="2.6",
            compression="zstd",
            compression_level=9,
            use_dictionary=True,
            write_statistics=True,
            data_page_version="1.0",
        )

    def add(self, row: Row) -> None:
        """Append a row."""
        line = as_json(row).encode()
        self._digest.update(line)
        self._rows.append(row)
        self._size += len(line)
        if len(self._rows) == ROW_GROUP or self._size >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> str:
        """Finish the file and return the sha256 of the content."""
        self._flush()
        self._writer.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Close an unfinished file that is no longer needed. On a full disk, closing fails once more."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA), row_group_size=ROW_GROUP)
            self._rows.clear()
            self._size = 0


def as_json(row: Row) -> str:
    """Return a row as one line of JSON, with the columns in the schema's order."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def columns() -> Sequence[Mapping[str, str]]:
    """Return the name and type of each column, for the manifest."""
    return [{"name": field.name, "type": str(field.type)} for field in SCHEMA]
