"""The rows of a published version: an example with the seed that it came from. Pure."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.errors import FailedPrecondition

FORMAT = "codealign.version.v1"

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
        pa.field("seed_id", pa.string(), nullable=False),
        pa.field("concept_set_id", pa.string(), nullable=False),
        pa.field("instruction_id", pa.string(), nullable=False),
        pa.field("response_id", pa.string(), nullable=False),
        pa.field("verdict_id", pa.string(), nullable=False),
        pa.field("seed_code", pa.string(), nullable=False),
        pa.field("seed_path", pa.string(), nullable=False),
        pa.field("seed_line", pa.int32(), nullable=False),
        pa.field("seed_license", pa.string(), nullable=False),
    ]
)

# Rows in a row group: a reader's and the writer's unit of memory.
ROW_GROUP = 4096

Row = dict[str, Any]


def row_of(record: pb.Record, related: Mapping[str, pb.Record]) -> Row:
    """An example's row.

    Args:
        record: The Example record.
        related: At least its verdict and its seed, by id.

    Raises:
        FailedPrecondition: The row has no right to be published; the message names it and says why.
    """
    example = record.example
    _require_verdict(record, related)
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
        "seed_id": example.seed_id,
        "concept_set_id": example.concept_set_id,
        "instruction_id": example.instruction_id,
        "response_id": example.response_id,
        "verdict_id": example.verdict_id,
        "seed_code": seed.code,
        "seed_path": seed.path,
        "seed_line": seed.line,
        "seed_license": seed.license,
    }


def _require_verdict(record: pb.Record, related: Mapping[str, pb.Record]) -> None:
    example = record.example
    verdict = related.get(example.verdict_id)
    if verdict is None or verdict.kind != pb.KIND_VERDICT:
        raise FailedPrecondition(
            f"example {record.id} has no verdict (verdict_id {example.verdict_id or 'is empty'}): a row is published "
            "only with the verdict that let it pass"
        )
    if example.response_id not in verdict.parents:
        raise FailedPrecondition(
            f"example {record.id}: verdict {verdict.id} is about {', '.join(verdict.parents) or 'no record'}, not "
            f"about its response {example.response_id or '(none)'}"
        )
    result = verdict.verdict.result
    if result.verdict != sandbox_pb2.VERDICT_PASSED:
        name = sandbox_pb2.Verdict.DESCRIPTOR.values_by_number.get(result.verdict)
        raise FailedPrecondition(
            f"example {record.id}: its verdict {verdict.id} is {name.name if name else result.verdict}, not PASSED"
        )
    if result.isolation != sandbox_pb2.ISOLATION_GVISOR:
        raise FailedPrecondition(
            f"example {record.id}: its verdict {verdict.id} was made without gVisor's isolation, and such verdicts "
            "never enter a version; execute it again in an isolated sandbox"
        )


def _seed(record: pb.Record, related: Mapping[str, pb.Record]) -> pb.Seed:
    seed_id = record.example.seed_id
    if not seed_id:  # another pipeline's example, which began without a seed
        return pb.Seed()
    seed = related.get(seed_id)
    if seed is None or seed.kind != pb.KIND_SEED:
        raise FailedPrecondition(f"example {record.id}: its seed {seed_id} is not in the store")
    return seed.seed


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
