"""One published row and its history: the records of a report's trail, arranged from seed to row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf import json_format

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.family import BESIDE
from codealign.cli.lineage import kind_name, seed_place, verdict_name
from codealign.cli.report.judged import JudgedView, judged_view
from codealign.cli.report.wording import Words, judgement_words, short
from codealign.cli.terminal import count, duration
from codealign.common.records import body


@dataclass(frozen=True)
class Prompt:
    """What a model was given, the cost, and what it wrote."""

    facts: str
    examples: str
    """The few-shot part. Empty: not in the trail."""
    rest: str
    written: str
    """The raw completion. Empty: not in the trail."""


@dataclass(frozen=True)
class Step:
    """A record on the line from the seed to the row's candidates."""

    title: str
    record: pb.Record
    sort: str
    """How it is shown: "seed", "concepts", "instruction", or "other"."""
    asked: str
    """For an instruction: the requested properties."""
    other: str
    """For other kinds: the body as text."""
    line: str
    """Everything in one line."""
    decisions: tuple[str, ...]
    prompt: Prompt | None
    judged: JudgedView | None
    """Of a judgement."""


@dataclass(frozen=True)
class Attempt:
    """A candidate that the row was chosen from."""

    number: int
    record_id: str
    verdict: str
    """Name of the verdict or rejection. Empty: not executed."""
    passed: bool
    meaning: str
    detail: str
    seconds: float
    """Wall-clock seconds of the program."""
    answer: str
    tests: str
    chosen: bool
    decisions: tuple[str, ...]
    prompt: Prompt | None


@dataclass
class RowHistory:
    """A row and everything it was derived from. Parts that the trail lacks are empty."""

    row: pb.Record
    steps: list[Step] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    """Decisions about records that are not shown."""


def row_history(report: api.GetReportResponse) -> RowHistory | None:
    """Return the history of the trail's row, or None if there is no row."""
    rows = [record for record in report.trail if record.kind == pb.KIND_EXAMPLE]
    return _Builder(report, rows[-1]).build() if rows else None


class _Builder:
    def __init__(self, report: api.GetReportResponse, row: pb.Record) -> None:
        self._report, self._row = report, row
        self._words = Words(report.pipeline)
        self._there = {record.id: record for record in (*report.trail_references, *report.trail)}
        self._stages = {step.record_id: step.stage for step in row.example.lineage}
        self._decisions: dict[str, list[str]] = {}
        for record in report.trail:
            if record.kind == pb.KIND_DECISION:
                about = record.parents[0] if record.parents else ""
                self._decisions.setdefault(about, []).append(decision_words(record.decision))
        self._verdicts = {
            parent: record for record in report.trail if record.kind == pb.KIND_VERDICT for parent in record.parents[:1]
        }
        # A response with stronger tests has two verdicts; the row's is that on the stronger ones.
        if (own := self._there.get(row.example.verdict_id)) is not None:
            self._verdicts[own.parents[0]] = own

    def build(self) -> RowHistory:
        """Return the whole history."""
        history = RowHistory(self._row)
        line = [record for record in self._report.trail if record.kind not in (*BESIDE, pb.KIND_EXAMPLE)]
        chosen = self._chosen(line)
        drawn = chosen.kind if chosen is not None else pb.KIND_RESPONSE
        beside = chosen.parents[0] if chosen is not None and chosen.parents else ""
        for record in line:
            if record is chosen or (record.kind == drawn and list(record.parents[:1]) == [beside]):
                history.attempts.append(self._attempt(record, chosen=record is chosen))
            else:
                history.steps.append(self._step(record))
        for record in self._report.trail:
            if record.kind == pb.KIND_REJECTION and record.rejection.rejected_kind == drawn:
                history.attempts.append(self._rejected(record))
        history.attempts.sort(key=lambda attempt: (attempt.number, attempt.record_id))
        history.decisions = [text for texts in self._decisions.values() for text in texts]
        return history

    def _chosen(self, line: Sequence[pb.Record]) -> pb.Record | None:
        """Return the record that the row was made from: the last of its lineage, or of the line."""
        wanted = [step.record_id for step in self._row.example.lineage] or list(self._row.parents)
        found = [record for record in line if record.id in wanted]
        return max(found, key=lambda record: wanted.index(record.id)) if found else None

    def _step(self, record: pb.Record) -> Step:
        sort, line, asked, other = "other", "", "", ""
        judged = None
        match record.WhichOneof("body"):
            case "seed":
                sort, line = "seed", f"{seed_place(record.seed)} {record.seed.name}".rstrip()
            case "concept_set":
                sort, line = "concepts", ", ".join(record.concept_set.concepts)
            case "instruction":
                sort, line = "instruction", record.instruction.text
                parts = (record.instruction.difficulty, record.instruction.category, record.instruction.language)
                asked = ", ".join(part for part in parts if part) or "anything"
            case "judgement":
                other = line = judgement_words(record.judgement)
                judged = judged_view(record, self._report.trail)
            case _:
                message = body(record)
                text = json_format.MessageToJson(message, ensure_ascii=False) if message is not None else ""
                other = line = text or "(unknown kind of record)"
        return Step(
            title=self._title(record),
            record=record,
            sort=sort,
            asked=asked,
            other=other,
            line=line,
            decisions=tuple(self._decisions.pop(record.id, [])),
            prompt=self._prompt(record),
            judged=judged,
        )

    def _title(self, record: pb.Record) -> str:
        """Return the record's kind as a heading, with its stage if several stages of the line make this kind."""
        name = kind_name(record.kind)
        title = {"concept set": "concepts"}.get(name, name).capitalize()
        same = [other for other in self._report.trail if other.kind == record.kind]
        stage = self._stages.get(record.id, "")
        return f"{title} ({self._words.title(stage)})" if stage and len(same) > 1 else title

    def _attempt(self, record: pb.Record, *, chosen: bool) -> Attempt:
        verdict = self._verdicts.get(record.id)
        name, detail, seconds = "", "", 0.0
        if verdict is not None:
            result = verdict.verdict.result
            name, seconds = verdict_name(result.verdict), result.wall_seconds
            parts = [
                result.detail,
                f"{result.failing_source} line {result.failing_line}" if result.failing_line else "",
                f"{count(result.assertions_executed, 'assertion')} executed" if result.assertions_executed else "",
            ]
            detail = "; ".join(part for part in parts if part)
        about = self._decisions.pop(record.id, []) + (self._decisions.pop(verdict.id, []) if verdict else [])
        answer, tests = record.response.answer, record.response.tests
        if task := record.response.instruction:
            answer = f"{task}\n\n{answer}"
        if not record.HasField("response"):
            answer = self._step(record).line
        return Attempt(
            number=record.attempt,
            record_id=record.id,
            verdict=name,
            passed=name == "PASSED",
            meaning=self._words.meaning_or_name(name) if name else "not executed",
            detail=detail,
            seconds=seconds,
            answer=answer or self._text(record),
            tests=tests,
            chosen=chosen,
            decisions=tuple(about),
            prompt=self._prompt(record),
        )

    def _rejected(self, record: pb.Record) -> Attempt:
        said = record.rejection
        return Attempt(
            number=record.attempt,
            record_id=record.id,
            verdict=said.reason,
            passed=False,
            meaning=self._words.meaning_or_name(said.reason),
            detail="; ".join(part for part in (said.detail, said.evidence) if part),
            seconds=0.0,
            answer=self._text(record),
            tests="",
            chosen=False,
            decisions=(),
            prompt=self._prompt(record),
        )

    def _completion(self, record: pb.Record) -> pb.Record | None:
        found = [self._there[parent] for parent in record.parents if parent in self._there]
        return next((one for one in found if one.kind == pb.KIND_COMPLETION), None)

    def _text(self, record: pb.Record) -> str:
        completion = self._completion(record)
        return completion.completion.text if completion is not None else ""

    def _prompt(self, record: pb.Record) -> Prompt | None:
        """Return how a record was generated, or None if it was not."""
        completion = self._completion(record)
        origin = record.provenance
        if completion is None and not origin.model:
            return None
        written = completion.completion if completion is not None else pb.Completion()
        prefix = self._there.get(completion.parents[0]) if completion is not None and completion.parents else None
        return Prompt(
            facts=origin_facts(origin if origin.model or completion is None else completion.provenance, written),
            examples=prefix.prompt_prefix.text if prefix is not None else "",
            rest=written.prompt_suffix,
            written=written.text,
        )


def origin_facts(origin: pb.Provenance, written: pb.Completion) -> str:
    """Return how a text was generated in one line: model, tokens, seed, end, seconds."""
    cached = f" ({origin.cached_prompt_tokens:,} of them from the cache)" if origin.cached_prompt_tokens else ""
    cached = " (how many of them from the cache is unknown)" if origin.cached_prompt_tokens_unknown else cached
    facts: Mapping[str, object] = {
        origin.model + (f" at {short(origin.model_revision)}" if origin.model_revision else ""): True,
        f"{count(origin.prompt_tokens, 'prompt token')}{cached}": True,
        f"{origin.generated_tokens:,} generated": True,
        f"sampling seed {origin.seed}": origin.seed,
        f"ended by {written.finish_reason}": written.finish_reason,
        written.detail: written.detail,
        duration(origin.seconds): origin.seconds,
    }
    return ", ".join(fact for fact, there in facts.items() if there and fact)


def decision_words(decision: pb.Decision) -> str:
    """Return a decision in one line: "dropped by dedup.instruction (duplicate of 0123456789ab)"."""
    outcome = "kept" if decision.outcome == pb.Decision.OUTCOME_KEPT else "dropped"
    duplicate = f" (duplicate of {short(decision.duplicate_of)})" if decision.duplicate_of else ""
    return f"{outcome} by {decision.rule}" + (f": {decision.detail}" if decision.detail else "") + duplicate
