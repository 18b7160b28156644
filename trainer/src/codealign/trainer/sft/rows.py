"""Read a dataset: Parquet at any fsspec URL, with the columns that are trained on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from codealign.trainer.sft.job import TrainingError

COLUMNS = ("instruction", "response")


@dataclass(frozen=True, slots=True)
class Row:
    """An instruction with its answer."""

    id: str
    """Id of the row, or its number if the dataset has no ids."""
    instruction: str
    response: str


def parquet_files(url: str) -> tuple[Any, Sequence[str]]:
    """Return a dataset's file system and its Parquet files, sorted by name.

    Raises:
        TrainingError: There are no files, or they cannot be reached.
    """
    try:
        system, path = fsspec.core.url_to_fs(url)
        if system.isfile(path):
            return system, [path]
        files = sorted(file for file in system.find(path) if file.endswith(".parquet"))
    except (OSError, ValueError, ImportError) as error:
        raise TrainingError(f"dataset {url} cannot be reached: {error}") from error
    if not files:
        raise TrainingError(
            f"dataset {url} contains no *.parquet file: give a published version's name, or the URL of a folder of "
            "Parquet files"
        )
    return system, files


def fingerprint(url: str) -> str:
    """Return the sha256 of the files' contents, independent of their names, as 64 hexadecimal digits."""
    system, files = parquet_files(url)
    total = hashlib.sha256(b"codealign dataset 1\n")
    for file in files:
        with system.open(file, "rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def read_rows(url: str) -> list[Row]:
    """Read all rows of a dataset, sorted by their texts.

    Ids of published rows cover more than the texts, such as the runner image's digest, and a version is sorted by them.
    A training depends on what the rows say, not on where they were made.

    Raises:
        TrainingError: The dataset cannot be read, lacks a column or is empty.
    """
    system, files = parquet_files(url)
    rows: list[Row] = []
    for file in files:
        with system.open(file, "rb") as stream:
            rows += _rows_of(stream, file, len(rows))
    if not rows:
        raise TrainingError(f"dataset {url} has no rows: there is nothing to train on")
    rows.sort(key=lambda row: (row.instruction, row.response, row.id))
    return rows


def drawn(rows: Sequence[Row], count: int, seed: int) -> Sequence[Row]:
    """Return `count` rows (0: all) drawn by the seed, in their order. A smaller count draws a subset of a larger one.

    Raises:
        TrainingError: There are fewer rows.
    """
    if not count:
        return rows
    if count > len(rows):
        raise TrainingError(f"spec.rows is {count:,}, but the dataset has only {len(rows):,} rows")
    order = list(range(len(rows)))
    random.Random(f"codealign rows {seed}").shuffle(order)  # noqa: S311 - not used for secrets
    return [rows[at] for at in sorted(order[:count])]


def check_columns(url: str) -> int:
    """Check a dataset's schemas without reading its rows.

    Returns:
        Number of rows.

    Raises:
        TrainingError: Same as for `read_rows`.
    """
    system, files = parquet_files(url)
    count = 0
    for file in files:
        with system.open(file, "rb") as stream:
            count += int(_open(stream, file).metadata.num_rows)
    if not count:
        raise TrainingError(f"dataset {url} has no rows: there is nothing to train on")
    return count


def _open(stream: Any, file: str) -> Any:
    try:
        parquet = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        raise TrainingError(f"{file} is not a readable Parquet file ({error}): download or publish it again") from error
    schema = parquet.schema_arrow
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing:
        raise TrainingError(
            f"{file} lacks the column{'s' if len(missing) > 1 else ''} {' and '.join(missing)} (it has "
            f"{', '.join(schema.names)}): training rows need a text `instruction` and a text `response`"
        )
    for name in COLUMNS:
        kind = schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise TrainingError(f"{file}: column {name} is {kind}; must be text")
    return parquet


def _rows_of(stream: Any, file: str, first: int) -> list[Row]:
    parquet = _open(stream, file)
    named = "id" in parquet.schema_arrow.names
    found: list[Row] = []
    for batch in parquet.iter_batches(columns=[*COLUMNS, *(["id"] if named else [])]):
        for row in batch.to_pylist():
            number = first + len(found)
            if row["instruction"] is None or row["response"] is None:
                raise TrainingError(f"{file}: row {number} has no instruction or no response")
            found.append(Row(str(row["id"]) if named else str(number), row["instruction"], row["response"]))
    return found
