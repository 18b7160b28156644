"""The rows of a published version: an example with its lineage, its verdict and the seed that it came from. Pure."""

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

FORMAT = "codealign.version.v2"

_STEP = pa.struct([pa.field("stage", pa.string(), nullable=False), pa.field("id", pa.string(), nullable=False)])
# A change here changes every version's name: then FORMAT changes as well.
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
    ]
)

NOT_EXECUTED = "NOT_EXECUTED"
"""In place of a verdict, in a version whose rows were never executed."""

# Rows in a row group: a reader's and the writer's unit of memory.
ROW_GROUP = 4096

Row = dict[str, Any]


@dataclass(frozen=True)
class Admitted:
    """Which rows a version may have."""

    verdicts: frozenset[int] = frozenset({sandbox_pb2.VERDICT_PASSED})
    """Their verdicts."""
    not_executed: bool = False
    """They were never executed: none has a verdict."""


PASSED_ALONE = Admitted()


def row_of(record: pb.Record, related: Mapping[str, pb.Record], admitted: Admitted) -> Row:
    """An example's row.

    Args:
        record: The Example record.
        related: At least its verdict and the first record of its lineage, by id.
        admitted: Which rows may be published.

    Raises:
        FailedPrecondition: The row has no right to be published; the message names it and says why.
    """
    example = record.example
    if not example.lineage:
        raise FailedPrecondition(
            f"example {record.id} has no lineage: an earlier release made it, or a pipeline that does not say what its "
            "rows came from; make it again"
        )
    verdict = _not_executed(record) if admitted.not_executed else _verdict(record, related, admitted)
    seed = _seed(record, related)
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
    }


def _not_executed(record: pb.Record) -> str:
    if record.example.verdict_id:
        raise FailedPrecondition(
            f"example {record.id} has a verdict ({record.example.verdict_id}), though the version is to hold rows that "
            "were never executed: publish it with the verdicts that its rows may have"
        )
    return NOT_EXECUTED


def _verdict(record: pb.Record, related: Mapping[str, pb.Record], admitted: Admitted) -> str:
    example = record.example
    verdict = related.get(example.verdict_id)
    if verdict is None or verdict.kind != pb.KIND_VERDICT:
        raise FailedPrecondition(
            f"example {record.id} has no verdict (verdict_id {example.verdict_id or 'is empty'}): a row is published "
            "only with the verdict that lets it in"
        )
    response_id = example.lineage[-1].record_id
    if response_id not in verdict.parents:
        raise FailedPrecondition(
            f"example {record.id}: verdict {verdict.id} is about {', '.join(verdict.parents) or 'no record'}, not "
            f"about its response {response_id}"
        )
    result = verdict.verdict.result
    if result.verdict not in admitted.verdicts:
        allowed = " or ".join(verdict_name(value) for value in sorted(admitted.verdicts))
        raise FailedPrecondition(
            f"example {record.id}: its verdict {verdict.id} is {verdict_name(result.verdict)}, not {allowed}"
        )
    if result.isolation != sandbox_pb2.ISOLATION_GVISOR:
        raise FailedPrecondition(
            f"example {record.id}: its verdict {verdict.id} was made without gVisor's isolation, and such verdicts "
            "never enter a version; execute it again in an isolated sandbox"
        )
    return verdict_name(result.verdict)


def _seed(record: pb.Record, related: Mapping[str, pb.Record]) -> pb.Seed:
    first = record.example.lineage[0]
    root = related.get(first.record_id)
    if root is None:
        raise FailedPrecondition(
            f"example {record.id}: the record that it began with ({first.stage} {first.record_id}) is not in the store"
        )
    return root.seed  # empty where a pipeline begins with something else


class TableWriter:
    """Writes rows to one Parquet file, in which equal rows give equal bytes, and hashes their content on the way.

    The hash is over the rows as JSON and not over the file, so that a version keeps its name when a later Parquet
    library compresses better.

    Args:
        path: The file to write.
    """

    def __init__(self, path: Path) -> None:
        self._digest = hashlib.sha256(f"{FORMAT}\n".encode())
        self._rows: list[Row] = []
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
        """The next row."""
        self._digest.update(as_json(row).encode())
        self._rows.append(row)
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def close(self) -> str:
        """Finish the file; gives the content's sha256."""
        self._flush()
        self._writer.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Close an unfinished file, which is of no use: on a full disk that fails once more."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA), row_group_size=ROW_GROUP)
            self._rows.clear()


def as_json(row: Row) -> str:
    """A row as one line of JSON, the columns in the schema's order."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def columns() -> Sequence[Mapping[str, str]]:
    """Name and type of each column, for the manifest."""
    return [{"name": field.name, "type": str(field.type)} for field in SCHEMA]
