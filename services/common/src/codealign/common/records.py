"""The identity of records: an id is a hash of what determines the record, so appending twice is appending once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb

BODY_OF_STAGE: dict[pb.Stage.ValueType, str] = {
    pb.STAGE_SEED: "seed",
    pb.STAGE_CONCEPT_SET: "concept_set",
    pb.STAGE_INSTRUCTION: "instruction",
    pb.STAGE_RESPONSE: "response",
    pb.STAGE_VERDICT: "verdict",
    pb.STAGE_EXAMPLE: "example",
    pb.STAGE_RUN: "run",
    pb.STAGE_RUN_EVENT: "run_event",
    pb.STAGE_STAGE_CONFIG: "stage_config",
    pb.STAGE_REJECTION: "rejection",
    pb.STAGE_DECISION: "decision",
    pb.STAGE_CHECKPOINT: "checkpoint",
    pb.STAGE_EVALUATION_RESULT: "evaluation_result",
    pb.STAGE_PROMPT_PREFIX: "prompt_prefix",
    pb.STAGE_PROBLEM: "problem",
}
"""The body that a record of each stage carries."""


def body(record: pb.Record) -> Message | None:
    """The body that is set, or None."""
    field = record.WhichOneof("body")
    return getattr(record, field) if field else None


def content_hash(record: pb.Record) -> str:
    """sha256 of the body, serialized with fields in order and map keys sorted; 64 hexadecimal digits."""
    message = body(record)
    data = message.SerializeToString(deterministic=True) if message is not None else b""
    return hashlib.sha256(data).hexdigest()


def derive_id(
    stage: pb.Stage.ValueType,
    parents: Sequence[str] = (),
    *,
    attempt: int = 0,
    stage_config_id: str = "",
    content: str = "",
) -> str:
    """The id of a record; see `Record.id` in records.proto.

    Args:
        stage: Its stage.
        parents: Its parents' ids, in order.
        attempt: Its attempt.
        stage_config_id: Its configuration's id.
        content: Its content hash; used for a root alone (no parents and no configuration).
    """
    lines = ["codealign.record.v1", str(int(stage)), ",".join(parents), str(attempt), stage_config_id]
    if not parents and not stage_config_id:
        lines.append(content)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def record_id(record: pb.Record) -> str:
    """The id that the record must bear."""
    return derive_id(
        record.stage,
        record.parents,
        attempt=record.attempt,
        stage_config_id=record.stage_config_id,
        content=content_hash(record),
    )


def complete(record: pb.Record) -> pb.Record:
    """Fill in `content_hash` and `id`; returns the same record."""
    record.content_hash = content_hash(record)
    record.id = record_id(record)
    return record


def seed_for(*parts: str | int) -> int:
    """A 63-bit seed that depends on these parts alone: for everything in a run that is random."""
    text = "\n".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
