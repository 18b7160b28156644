"""Publishes a collection's examples as an immutable version, and exports versions in other formats."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from sqlalchemy import Connection, select

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import FailedPrecondition
from codealign.common.logs import get_logger
from codealign.dataset.publishing.card import Counts, Description, card, manifest
from codealign.dataset.publishing.folders import MANIFEST, VersionFolders
from codealign.dataset.publishing.table import PASSED_ALONE, Admitted, TableWriter, as_json, row_of
from codealign.dataset.storage import catalogue
from codealign.dataset.storage.catalogue import PublishedVersion, VersionFile
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.rows import load
from codealign.dataset.storage.schema import collection_members

log = get_logger(__name__)

DATA_FILE = "data/train-00000-of-00001.parquet"
CARD_FILE = "README.md"
_NAME_DIGITS = 16
_PAGE = 250
_EXPORT_ROWS = 256
_EXPORT_BYTES = 2**20


class Publisher:
    """Publishes and exports versions.

    Args:
        database: The store of records.
        folders: The storage of versions.
    """

    def __init__(self, database: Database, folders: VersionFolders) -> None:
        self._database = database
        self._folders = folders
        self._one_at_a_time = threading.Lock()

    def publish(
        self,
        collection: str,
        about: Description,
        admitted: Admitted = PASSED_ALONE,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> tuple[PublishedVersion, bool]:
        """Write a collection's examples as a version.

        The name is a hash of the rows, so the same rows are the same version, whoever publishes them. It keeps the
        title, promise and facts of the first publication.

        Args:
            collection: The collection whose Example records are the rows.
            about: Description for card and manifest.
            admitted: Which rows are allowed. Any other row makes the whole version fail.
            check_cancelled: Called regularly; raises to stop the work.

        Returns:
            The version, and whether it existed already.

        Raises:
            FailedPrecondition: There is no row, or one that may not be published.
            ResourceExhausted: The disk is full.
        """
        with self._one_at_a_time, self._folders.partial() as partial:
            counts, content = self._write_rows(collection, admitted, partial / DATA_FILE, check_cancelled)
            name = f"v-{content[:_NAME_DIGITS]}"
            _write_text(partial / CARD_FILE, card(name, about, counts))
            files = [_entry(partial, path) for path in (CARD_FILE, DATA_FILE)]
            _write_text(partial / MANIFEST, manifest(name, content, about, counts, files))
            check_cancelled()
            placed = self._folders.place(partial, name)
            # The stored manifest is authoritative, also if an earlier publisher was killed before entering it here.
            kept = self._folders.manifest(name)
            version = catalogue.add(
                self._database,
                PublishedVersion(
                    name=name,
                    title=kept["title"] or collection,
                    collection=collection,
                    rows=kept["rows"],
                    files=tuple(VersionFile(**item) for item in kept["files"]),
                ),
            )
        log.info("version_published", version=name, collection=collection, rows=counts.rows, existed=not placed)
        return version, not placed

    def get(self, name: str) -> PublishedVersion:
        """Return a version by name."""
        return catalogue.get(self._database, name)

    def all_versions(self) -> list[PublishedVersion]:
        """Return every version, newest first."""
        return catalogue.all_versions(self._database)

    def url(self, name: str) -> str:
        """Return the URL of a version. It is not stored, because the parent directory may move with its setting."""
        return self._folders.url(name)

    def export_parquet(self, name: str) -> Iterator[bytes]:
        """Yield the version's data file in pieces."""
        catalogue.get(self._database, name)
        with self._folders.open(name, DATA_FILE) as file:
            while piece := file.read(_EXPORT_BYTES):
                yield piece

    def export_jsonl(self, name: str) -> Iterator[bytes]:
        """Yield the version's rows as lines of JSON, in pieces."""
        catalogue.get(self._database, name)
        with self._folders.open(name, DATA_FILE) as file:
            piece = bytearray()
            for batch in pq.ParquetFile(file).iter_batches(batch_size=_EXPORT_ROWS):
                for row in batch.to_pylist():
                    piece += as_json(row).encode()
                    while len(piece) >= _EXPORT_BYTES:  # a row may be larger than a message
                        yield bytes(piece[:_EXPORT_BYTES])
                        del piece[:_EXPORT_BYTES]
            if piece:
                yield bytes(piece)

    def _write_rows(
        self, collection: str, admitted: Admitted, path: Path, check_cancelled: Callable[[], None]
    ) -> tuple[Counts, str]:
        path.parent.mkdir(parents=True)
        writer = TableWriter(path)

        def work(connection: Connection) -> Counts:
            counts = Counts()
            for record, related in _examples(connection, collection):
                if counts.rows % _PAGE == 0:
                    check_cancelled()
                row = row_of(record, related, admitted)
                root = related[record.example.lineage[0].record_id]
                counts.add(row, from_import=bool(root.provenance.import_id))
                writer.add(row)
            counts.sources = _imports(connection, counts)
            return counts

        try:
            counts = self._database.read(work, snapshot=True)
        except BaseException:
            writer.abandon()
            raise
        content = writer.close()
        if counts.rows == 0:
            raise FailedPrecondition(
                f"collection {collection} has no examples, so there is nothing to publish; the run's report explains "
                "what happened to its seeds"
            )
        return counts, content


def _examples(connection: Connection, collection: str) -> Iterator[tuple[pb.Record, dict[str, pb.Record]]]:
    """Yield the collection's examples by id, each with at least its verdict and the first record of its lineage."""
    members = collection_members
    after = ""
    while True:
        statement = (
            select(members.c.record_id)
            .where(
                members.c.collection == collection,
                members.c.kind == pb.KIND_EXAMPLE,
                members.c.record_id > after,
            )
            .order_by(members.c.record_id)
            .limit(_PAGE)
        )
        ids = list(connection.execute(statement).scalars())
        if not ids:
            return
        page = load(connection, ids)
        wanted = {record.example.verdict_id for record in page.values()}
        wanted.update(step.record_id for record in page.values() for step in record.example.lineage[:1])
        related = load(connection, wanted)
        for key in ids:
            yield page[key], related
        after = ids[-1]


def _imports(connection: Connection, counts: Counts) -> dict[str, pb.Record]:
    """Return the Import records that the rows name, by id."""
    found = load(connection, set(counts.imports))
    for import_id in sorted(counts.imports):
        if import_id not in found or found[import_id].kind != pb.KIND_IMPORT:
            raise FailedPrecondition(
                f"a row says that it was imported from {import_id}, which is no Import in the store: append it first"
            )
    return found


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _entry(folder: Path, path: str) -> VersionFile:
    with (folder / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return VersionFile(path, digest, (folder / path).stat().st_size)
