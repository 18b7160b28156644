"""Validation of requests: each check names the path of the field. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Iterator, Sequence

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.errors import InvalidArgument
from codealign.common.records import BODY_OF_KIND, body, derive_id
from codealign.dataset import bodies
from codealign.dataset.bodies import MAX_NAME
from codealign.dataset.publishing.table import PASSED_ALONE, Admitted
from codealign.dataset.storage.browse import CATEGORIZED, FIRST, Position, View
from codealign.dataset.storage.rows import Entry, entry

MAX_RECORDS = 1000
MAX_IDS = 1000
MAX_PARENTS = 10_000
"""Parents of a record: PostgreSQL's column of their positions holds a little more."""
MAX_PAGE = 1000
DEFAULT_PAGE = 100
MAX_BROWSED = 200
DEFAULT_BROWSED = 50
MAX_LABELS = 100
MAX_TEXT = 500
MAX_LINEAGE = 10_000
DEFAULT_LINEAGE = 1000
MAX_TITLE = 500
MAX_FACTS = 200
MAX_FACT = 10_000
MIN_PREFIX = 6
MAX_TTL_SECONDS = 3600.0
DEFAULT_TTL_SECONDS = 15.0
MAX_VIOLATIONS = 20

_ID = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},32}}")
_ENTERED = re.compile(r"[0-9]{1,18}")
"""A position of `Browse`. The database's integers hold it."""
_ID_RULE = "must be 32 lower-case hexadecimal digits"

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Range of a Timestamp: the years 1 to 9999."""

_UNKNOWN_PAGE = "is not a token of this service"

Violation = tuple[str, str]
Pages = dataset_pb2.ScanRequest | dataset_pb2.BrowseRequest


def records(given: Sequence[pb.Record], max_bytes: int) -> list[Entry]:
    """Check records to append, and fill in missing ids and hashes. The store checks their parents.

    Returns:
        The records, ready to be stored.

    Raises:
        InvalidArgument: Lists up to 20 violations.
    """
    if len(given) > MAX_RECORDS:
        raise InvalidArgument("records", f"{len(given)} records; at most {MAX_RECORDS} in one call")
    violations: list[Violation] = []
    complete: list[Entry] = []
    for index, record in enumerate(given):
        found = [(f"records[{index}]{path}", text) for path, text in _record_violations(record, max_bytes)]
        violations += found
        if not found:
            complete.append(_completed(record, f"records[{index}]", violations))
        if len(violations) >= MAX_VIOLATIONS:
            break
    if violations:
        raise InvalidArgument(violations=violations[:MAX_VIOLATIONS])
    return complete


def _record_violations(record: pb.Record, max_bytes: int) -> Iterator[Violation]:
    expected = BODY_OF_KIND.get(record.kind)
    if expected is None:
        yield ".kind", "must be set" if not record.kind else f"{record.kind} is not a known kind"
        return
    found = record.WhichOneof("body")
    if found != expected:
        yield f".{expected}", f"must be set for {pb.Kind.Name(record.kind)}; found {found or 'no body'}"
        return
    if record.attempt < 0:
        yield ".attempt", f"is {record.attempt}; must not be negative"
    if len(record.parents) > MAX_PARENTS:
        yield ".parents", f"{len(record.parents)} parents; at most {MAX_PARENTS}"
    for position, parent in enumerate(record.parents):
        if not _ID.fullmatch(parent):
            yield f".parents[{position}]", _ID_RULE
    if record.stage_config_id and not _ID.fullmatch(record.stage_config_id):
        yield ".stage_config_id", _ID_RULE
    if record.key and (len(record.key) > MAX_NAME or not record.key.isprintable()):
        yield ".key", f"must be at most {MAX_NAME} printable characters"
    origin = record.provenance
    if not (math.isfinite(origin.seconds) and origin.seconds >= 0):
        yield ".provenance.seconds", f"is {origin.seconds:g}; must be 0 or more seconds"
    if not (_FIRST_SECOND <= origin.created_at.seconds <= _LAST_SECOND and 0 <= origin.created_at.nanos < 10**9):
        yield ".provenance.created_at", "must be a time between the years 1 and 9999"
    if record.ByteSize() > max_bytes:
        yield "", f"is {record.ByteSize()} bytes; at most {max_bytes} (CODEALIGN_DATASET_MAX_RECORD_BYTES)"
    yield from bodies.violations(record)


def _completed(record: pb.Record, path: str, violations: list[Violation]) -> Entry:
    message = body(record)
    serialized = message.SerializeToString(deterministic=True) if message is not None else b""
    digest = hashlib.sha256(serialized).hexdigest()
    if record.content_hash and record.content_hash != digest:
        violations.append((f"{path}.content_hash", f"is {record.content_hash}, but the hash of the body is {digest}"))
    derived = derive_id(
        record.kind,
        record.parents,
        attempt=record.attempt,
        stage_config_id=record.stage_config_id,
        content=digest,
        key=record.key,
    )
    if record.id and record.id != derived:
        violations.append((f"{path}.id", f"is {record.id}, but the id derived from the record is {derived}"))
    record.content_hash, record.id = digest, derived
    return entry(record, serialized)


def ids(given: Sequence[str], *, allow_prefix: bool) -> list[str]:
    """Check a list of ids."""
    if len(given) > MAX_IDS:
        raise InvalidArgument("ids", f"{len(given)} ids; at most {MAX_IDS} in one call")
    pattern, rule = (_PREFIX, _prefix_rule()) if allow_prefix else (_ID, _ID_RULE)
    violations = [(f"ids[{index}]", rule) for index, text in enumerate(given) if not pattern.fullmatch(text)]
    if violations:
        raise InvalidArgument(violations=violations[:MAX_VIOLATIONS])
    return list(given)


def prefix(path: str, text: str) -> str:
    """Check an id or an id's prefix."""
    if not _PREFIX.fullmatch(text):
        raise InvalidArgument(path, _prefix_rule())
    return text


def _prefix_rule() -> str:
    return f"must be an id or its beginning: {MIN_PREFIX} to 32 lower-case hexadecimal digits"


def optional_id(path: str, text: str) -> str:
    """Check an optional id."""
    if text and not _ID.fullmatch(text):
        raise InvalidArgument(path, _ID_RULE)
    return text


def name(path: str, text: str, *, required: bool = True) -> str:
    """Check the name of a collection, lease or holder."""
    if not text and required:
        raise InvalidArgument(path, "must be set")
    if len(text) > MAX_NAME or not text.isprintable():
        raise InvalidArgument(path, f"must be 1 to {MAX_NAME} printable characters")
    return text


def kind(path: str, value: int, *, required: bool) -> int:
    """Check a kind."""
    if value == pb.KIND_UNSPECIFIED and not required:
        return value
    if value not in BODY_OF_KIND:
        raise InvalidArgument(path, "must be set" if not value else f"{value} is not a known kind")
    return value


def amount(path: str, value: int, default: int, maximum: int) -> int:
    """Check a number of records; 0 means the default."""
    if not 0 <= value <= maximum:
        raise InvalidArgument(path, f"is {value}; must be 1 to {maximum}, or 0 for {default}")
    return value or default


def ttl(path: str, seconds: float) -> float:
    """Check a lease's duration; 0 means the default."""
    if seconds == 0:
        return DEFAULT_TTL_SECONDS
    if not (math.isfinite(seconds) and 1 <= seconds <= MAX_TTL_SECONDS):
        raise InvalidArgument(
            path, f"is {seconds:g}; must be 1 to {MAX_TTL_SECONDS:g} seconds, or 0 for {DEFAULT_TTL_SECONDS:g}"
        )
    return seconds


def text(path: str, value: str, maximum: int) -> str:
    """Check a single-line text for people."""
    if len(value) > maximum or "\x00" in value or "\n" in value:
        raise InvalidArgument(path, f"must be one line of at most {maximum} characters")
    return value


def facts(path: str, given: dict[str, str]) -> dict[str, str]:
    """Check the facts of a dataset card."""
    if len(given) > MAX_FACTS:
        raise InvalidArgument(path, f"{len(given)} facts; at most {MAX_FACTS}")
    for key, value in sorted(given.items()):
        if not key or len(key) > MAX_NAME or not key.isprintable():
            raise InvalidArgument(
                path, f"a fact's name must be 1 to {MAX_NAME} printable characters; found {key[:50]!r}"
            )
        if len(value) > MAX_FACT:
            raise InvalidArgument(f"{path}[{key}]", f"is {len(value)} characters; at most {MAX_FACT}")
    return given


def admitted(verdicts: Sequence[int], not_executed: bool) -> Admitted:
    """Check which rows a version may contain. Default: those that passed."""
    if not_executed and verdicts:
        raise InvalidArgument("verdicts", "must be empty if not_executed is set: such rows have no verdict")
    for index, value in enumerate(verdicts):
        if value not in sandbox_pb2.Verdict.values() or value in bodies.NO_VERDICTS:
            raise InvalidArgument(f"verdicts[{index}]", f"{value} is not a verdict that a row can have")
    return Admitted(frozenset(verdicts) or PASSED_ALONE.verdicts, not_executed)


def view(request: dataset_pb2.BrowseRequest) -> View:
    """Check which records a caller wants to look at."""
    if len(request.labels) > MAX_LABELS:
        raise InvalidArgument("labels", f"{len(request.labels)} labels; at most {MAX_LABELS}")
    chosen = View(
        collection=name("collection", request.collection),
        kind=kind("kind", request.kind, required=True),
        labels=tuple(name(f"labels[{index}]", label) for index, label in enumerate(request.labels)),
        stage_config_id=optional_id("stage_config_id", request.stage_config_id),
        rejected_kind=kind("rejected_kind", request.rejected_kind, required=False),
        outcome=request.outcome,
        category=name("category", request.category, required=False),
        text=request.text,
    )
    if chosen.category and chosen.kind not in CATEGORIZED:
        raise InvalidArgument("category", "only instructions and examples have one: leave it empty")
    if len(chosen.text) > MAX_TEXT or "\x00" in chosen.text:
        raise InvalidArgument("text", f"must be at most {MAX_TEXT} characters, without a zero byte")
    return chosen


def browse_token(request: dataset_pb2.BrowseRequest, position: Position) -> str:
    """Return the token for the next page, valid only with the same request fields."""
    return _token(f"{position[1]}{_question(request)}{position[0]}")


def browse_start(request: dataset_pb2.BrowseRequest) -> Position:
    """Return the position before which the page begins."""
    if not request.page_token:
        return FIRST
    content = _token_content(request)
    if not _ENTERED.fullmatch(content[48:]):
        raise InvalidArgument("page_token", _UNKNOWN_PAGE)
    return int(content[48:]), content[:32]


def page_token(request: dataset_pb2.ScanRequest, last_id: str) -> str:
    """Return the token for the next page, valid only with the same request fields."""
    return _token(f"{last_id}{_question(request)}")


def page_start(request: dataset_pb2.ScanRequest) -> str:
    """Return the id after which the page begins, or "" for the start."""
    return _token_content(request)[:32] if request.page_token else ""


def _token(content: str) -> str:
    return base64.urlsafe_b64encode(content.encode()).decode()


def _token_content(request: Pages) -> str:
    """Return a token's content: an id, the request's hash, and further digits."""
    try:
        content = base64.urlsafe_b64decode(request.page_token).decode()
    except (binascii.Error, ValueError):
        content = ""
    if not _ID.fullmatch(content[:32]):
        raise InvalidArgument("page_token", _UNKNOWN_PAGE)
    if content[32:48] != _question(request):
        raise InvalidArgument(
            "page_token", "belongs to a request with other fields: repeat the same fields for every page"
        )
    return content


def _question(request: Pages) -> str:
    question = type(request)()
    question.MergeFrom(request)  # type: ignore[arg-type]  # both are of one type
    question.page_size = 0
    question.page_token = ""
    return hashlib.sha256(question.SerializeToString(deterministic=True)).hexdigest()[:16]
