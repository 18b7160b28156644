"""Records of imported rows.

A root's id is a hash of its content, a child's one of its parents and its content, so a row that is imported again is
the same record. A response names its Import: the same row from another file, or read in another way, is another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import __version__
from codealign.cli.importing.format import Format, Node, reading_version
from codealign.common.records import BODY_OF_KIND, complete, content_hash

_MOST_NAME = 200
"""Characters of a name that the store takes."""
_KIND_OF_BODY = {type(getattr(pb.Record(), name)): (kind, name) for kind, name in BODY_OF_KIND.items()}


def import_record(
    name: str, sha256: str, size: int, form: Format, columns: Mapping[str, str], license_id: str
) -> pb.Record:
    """Return the Import record of a file."""
    body = pb.Import(
        name=_stored_name(name),
        sha256=sha256,
        size_bytes=size,
        format=form.name,
        columns=columns,
        license=license_id,
        reading=form.VERSION + reading_version() - 1,
    )
    return complete(pb.Record(kind=pb.KIND_IMPORT, import_source=body, provenance=_provenance()))


def _stored_name(name: str) -> str:
    """Return a file's name as the store takes it: printable, and its end if it is too long.

    Digits that depend on the whole name tell long names with the same end apart.
    """
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)
    if len(shown) <= _MOST_NAME:
        return shown
    digits = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{digits}…{shown[len(digits) + 1 - _MOST_NAME :]}"


def row_records(nodes: Sequence[Node], source: pb.Record) -> list[pb.Record]:
    """Return the records of a row, parents first, with their ids.

    Args:
        nodes: Bodies from the format.
        source: The Import record.
    """
    made: list[pb.Record] = []
    for node in nodes:
        kind, field = _KIND_OF_BODY[type(node.body)]
        record = pb.Record(kind=kind, provenance=_provenance(source.id))
        getattr(record, field).CopyFrom(node.body)
        if kind == pb.KIND_RESPONSE:
            record.response.imported_from = source.id
        if node.parent is not None:
            record.parents.append(made[node.parent].id)
            record.key = content_hash(record)
        made.append(complete(record))
    return made


def _provenance(import_id: str = "") -> pb.Provenance:
    return pb.Provenance(producer=f"codealign-cli {__version__}", import_id=import_id)
