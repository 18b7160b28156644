"""Identity of records: an id is a hash of what determines the record, so appending a record twice has no effect."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import date

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb

BODY_OF_KIND: dict[pb.Kind.ValueType, str] = {
    pb.KIND_SEED: "seed",
    pb.KIND_CONCEPT_SET: "concept_set",
    pb.KIND_INSTRUCTION: "instruction",
    pb.KIND_RESPONSE: "response",
    pb.KIND_VERDICT: "verdict",
    pb.KIND_EXAMPLE: "example",
    pb.KIND_RUN: "run",
    pb.KIND_RUN_EVENT: "run_event",
    pb.KIND_STAGE_CONFIG: "stage_config",
    pb.KIND_REJECTION: "rejection",
    pb.KIND_DECISION: "decision",
    pb.KIND_CHECKPOINT: "checkpoint",
    pb.KIND_EVALUATION_RESULT: "evaluation_result",
    pb.KIND_PROMPT_PREFIX: "prompt_prefix",
    pb.KIND_PROBLEM: "problem",
    pb.KIND_COMPLETION: "completion",
    pb.KIND_RUN_REQUEST: "run_request",
    pb.KIND_WORK_LOG: "work_log",
    pb.KIND_LOOP: "loop",
    pb.KIND_EVALUATION_JOB: "evaluation_job",
    pb.KIND_IMPORT: "import_source",
    pb.KIND_EXPERIMENT: "experiment",
    pb.KIND_SERIES: "round_series",
    pb.KIND_TRIAL: "trial",
    pb.KIND_JUDGEMENT: "judgement",
}
"""The body field of each kind of record."""


_REQUESTS_OF_A_DAY = re.compile(r"requests/\d{4}-\d{2}-\d{2}")


def requests_collection(day: date) -> str:
    """Return the collection of a day's RunRequest records, in which coordinators find new requests.

    It is internal to the services; see `is_internal`.
    """
    return f"requests/{day:%Y-%m-%d}"


def is_internal(collection: str) -> bool:
    """Return whether a collection is internal to the services and hidden from users."""
    return _REQUESTS_OF_A_DAY.fullmatch(collection) is not None


def is_record_id(text: str) -> bool:
    """Return whether a text has the form of a record's id."""
    return re.fullmatch("[0-9a-f]{32}", text) is not None


def body(record: pb.Record) -> Message | None:
    """Return the body that is set, or None."""
    field = record.WhichOneof("body")
    return getattr(record, field) if field else None


def content_hash(record: pb.Record) -> str:
    """Return the sha256 of the body, serialized with fields in order and map keys sorted, as 64 hexadecimal digits."""
    message = body(record)
    data = message.SerializeToString(deterministic=True) if message is not None else b""
    return hashlib.sha256(data).hexdigest()


def derive_id(
    kind: pb.Kind.ValueType,
    parents: Sequence[str] = (),
    *,
    attempt: int = 0,
    stage_config_id: str = "",
    content: str = "",
    key: str = "",
) -> str:
    """Return the id of a record; see `Record.id` in records.proto.

    Args:
        kind: The record's kind.
        parents: Ids of its parents, in order.
        attempt: Its attempt.
        stage_config_id: Id of its configuration.
        content: Its content hash, used only for roots (no parents and no configuration).
        key: Additional text that determines the record.
    """
    lines = ["codealign.record.v1", str(int(kind)), ",".join(parents), str(attempt), stage_config_id]
    if not parents and not stage_config_id:
        lines.append(content)
    if key:
        lines.append(key)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def record_id(record: pb.Record) -> str:
    """Return the id that the record must have."""
    return _record_id(record, content_hash(record))


def _record_id(record: pb.Record, content: str) -> str:
    return derive_id(
        record.kind,
        record.parents,
        attempt=record.attempt,
        stage_config_id=record.stage_config_id,
        content=content,
        key=record.key,
    )


def complete(record: pb.Record) -> pb.Record:
    """Fill in `content_hash` and `id`, and return the same record."""
    record.content_hash = content_hash(record)
    record.id = _record_id(record, record.content_hash)
    return record


def seed_for(*parts: str | int) -> int:
    """Return a 63-bit seed that depends only on these parts, for all randomness in a run."""
    text = "\n".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
