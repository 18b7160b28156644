"""One published row, followed from its seed: the records of a trail, put in their places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.lineage import verdict_name
from codealign.cli.report.wording import reason_words, short
from codealign.cli.terminal import count, duration


@dataclass(frozen=True)
class Prompt:
    """What a model was given, and how much of it was computed."""

    facts: str
    examples: str
    """The few-shot part. Empty: not in the trail."""
    rest: str


@dataclass(frozen=True)
class Attempt:
    """One draw of an answer."""

    number: int
    record_id: str
    verdict: str
    """The verdict's or the rejection's name. Empty: not executed."""
    passed: bool
    meaning: str
    detail: str
    seconds: float
    """That the program ran."""
    answer: str
    tests: str
    chosen: bool
    decisions: tuple[str, ...]
    prompt: Prompt | None


@dataclass
class Story:
    """A row and everything it came from; parts that the trail lacks are None or empty."""

    row: pb.Record
    seed: pb.Record | None = None
    concepts: pb.Record | None = None
    instruction: pb.Record | None = None
    attempts: list[Attempt] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    """About the seed and the instruction."""
    references: Mapping[str, pb.Record] = field(default_factory=dict)

    def prompt(self, record: pb.Record) -> Prompt | None:
        """How the record was generated; None: it was not."""
        return _prompt(record, self.references)


def story(report: api.GetReportResponse) -> Story | None:
    """The trail's row; None: there is none."""
    by_stage: dict[int, list[pb.Record]] = {}
    for record in report.trail:
        by_stage.setdefault(record.kind, []).append(record)
    rows = by_stage.get(pb.KIND_EXAMPLE)
    if not rows:
        return None
    references = {record.id: record for record in report.trail_references}
    told = Story(rows[-1], references=references)
    told.seed = next(iter(by_stage.get(pb.KIND_SEED, [])), None)
    told.concepts = next(iter(by_stage.get(pb.KIND_CONCEPT_SET, [])), None)
    told.instruction = next(iter(by_stage.get(pb.KIND_INSTRUCTION, [])), None)
    decisions: dict[str, list[str]] = {}
    for record in by_stage.get(pb.KIND_DECISION, []):
        decisions.setdefault(record.parents[0] if record.parents else "", []).append(_decision(record.decision))
    verdicts = {parent: record for record in by_stage.get(pb.KIND_VERDICT, []) for parent in record.parents[:1]}
    for record in by_stage.get(pb.KIND_RESPONSE, []):
        verdict = verdicts.get(record.id)
        about = decisions.pop(record.id, []) + (decisions.pop(verdict.id, []) if verdict else [])
        chosen = record.id in (*told.row.parents, told.row.example.response_id)
        told.attempts.append(_attempt(record, verdict, chosen, tuple(about), references))
    for record in by_stage.get(pb.KIND_REJECTION, []):
        if record.rejection.rejected_kind == pb.KIND_RESPONSE:
            told.attempts.append(_rejected(record, references))
    told.attempts.sort(key=lambda attempt: (attempt.number, attempt.record_id))
    told.decisions = [text for texts in decisions.values() for text in texts]
    return told


def _attempt(
    record: pb.Record,
    verdict: pb.Record | None,
    chosen: bool,
    decisions: tuple[str, ...],
    references: Mapping[str, pb.Record],
) -> Attempt:
    body = record.response
    name, passed, detail, seconds = "", False, "", 0.0
    if verdict is not None:
        result = verdict.verdict.result
        name = verdict_name(result.verdict)
        passed, seconds = name == "PASSED", result.wall_seconds
        parts = [
            result.detail,
            f"{result.failing_source} line {result.failing_line}" if result.failing_line else "",
            f"{count(result.assertions_executed, 'assertion')} executed" if result.assertions_executed else "",
        ]
        detail = "; ".join(part for part in parts if part)
    return Attempt(
        number=record.attempt,
        record_id=record.id,
        verdict=name,
        passed=passed,
        meaning=reason_words(name) if name else "not executed",
        detail=detail,
        seconds=seconds,
        answer=body.answer or body.text,
        tests=body.tests,
        chosen=chosen,
        decisions=decisions,
        prompt=_prompt(record, references),
    )


def _rejected(record: pb.Record, references: Mapping[str, pb.Record]) -> Attempt:
    body = record.rejection
    return Attempt(
        number=record.attempt,
        record_id=record.id,
        verdict=body.reason,
        passed=False,
        meaning=reason_words(body.reason),
        detail=body.detail,
        seconds=0.0,
        answer=body.text,
        tests="",
        chosen=False,
        decisions=(),
        prompt=_prompt(record, references),
    )


def _decision(decision: pb.Decision) -> str:
    outcome = "kept" if decision.outcome == pb.Decision.OUTCOME_KEPT else "dropped"
    duplicate = f" (duplicate of {short(decision.duplicate_of)})" if decision.duplicate_of else ""
    return f"{outcome} by {decision.rule}" + (f": {decision.detail}" if decision.detail else "") + duplicate


def _prompt(record: pb.Record, references: Mapping[str, pb.Record]) -> Prompt | None:
    origin = record.provenance
    if not origin.model and not origin.prompt_suffix:
        return None
    cached = f" ({origin.cached_prompt_tokens:,} of them from the cache)" if origin.cached_prompt_tokens else ""
    facts = [
        origin.model + (f" at {short(origin.model_revision)}" if origin.model_revision else ""),
        f"{count(origin.prompt_tokens, 'prompt token')}{cached}",
        f"{origin.generated_tokens:,} generated",
        f"sampling seed {origin.seed}" if origin.seed else "",
        f"ended by {origin.finish_reason}" if origin.finish_reason else "",
        duration(origin.seconds) if origin.seconds else "",
    ]
    prefix = references.get(origin.prompt_prefix_id)
    text = prefix.prompt_prefix.text if prefix is not None else ""
    return Prompt(", ".join(fact for fact in facts if fact), text, origin.prompt_suffix)
