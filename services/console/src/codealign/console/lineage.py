"""A record's page: its own texts, the line from its seed, and everything around it as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from markupsafe import Markup

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.family import ORIGINS, Family, load_family
from codealign.cli.lineage import kind_name, verdict_name
from codealign.cli.progress import state_name
from codealign.cli.records_view import result_facts
from codealign.cli.report import charts
from codealign.cli.report.row_history import decision_words, origin_facts
from codealign.common.records import body
from codealign.console import judged, texts
from codealign.console.reading import Reader
from codealign.console.texts import GLANCED, SHOWN, Shown, render

MOST = 300
"""Records around one record that a page shows."""
DEEPEST = 40
"""Levels of the tree. What is below them is shown at the last one, in order."""
MOST_GLANCED = 100_000
"""Characters of HTML of the texts in the tree together."""
ALONE = (
    *(pb.KIND_RUN, pb.KIND_STAGE_CONFIG, pb.KIND_PROMPT_PREFIX, pb.KIND_WORK_LOG, pb.KIND_LOOP),
    *(pb.KIND_RUN_REQUEST, pb.KIND_RUN_EVENT, pb.KIND_EVALUATION_JOB, pb.KIND_CHECKPOINT),
    *(pb.KIND_EXPERIMENT, pb.KIND_SERIES),
)
"""Kinds without a lineage of their own: they concern thousands of records."""


@dataclass(frozen=True)
class PromptView:
    """What a model was given and what it wrote."""

    facts: str
    parts: tuple[Shown, ...]
    completion: str
    """Id of the completion."""


@dataclass
class Node:
    """A record in the tree."""

    record: pb.Record
    title: str
    badge: str
    tone: str
    summary: str
    focus: bool
    line: bool
    """It leads from the seed to the record."""
    parts: list[Shown]
    decisions: list[tuple[str, str, str]]
    """Words, colour and id of each decision about it."""
    prompt: PromptView | None
    children: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Beside:
    """A record that belongs to another: the program of a verdict, the verdict on a program."""

    title: str
    badge: str
    tone: str
    url: str
    note: str
    parts: list[Shown]


@dataclass(frozen=True)
class RecordView:
    """A record and what is around it."""

    title: str
    badge: str
    tone: str
    facts: list[tuple[str, str]]
    links: list[tuple[str, str, str]]
    """Name, text and address of each record that it refers to."""
    parts: list[Shown]
    beside: list[Beside]
    chart: Markup
    prompt: PromptView | None
    trees: list[Node]
    clipped: bool
    """The tree leaves out texts of some records."""
    above: list[Node]
    """The line from the seed, without the record."""


def badge(record: pb.Record) -> tuple[str, str]:
    """Return a record's verdict, reason or rule, and its colour; ("", "") if it has none."""
    match record.WhichOneof("body"):
        case "verdict" | "trial" as kind:
            verdict = verdict_name(getattr(record, kind).result.verdict)
            return verdict, "good" if verdict in ("PASSED", "COMPLETED") else "bad"
        case "judgement":
            return ("contested", "bad") if record.judgement.is_contested else ("", "")
        case "rejection":
            return record.rejection.reason, "bad"
        case "decision":
            kept = record.decision.outcome == pb.Decision.OUTCOME_KEPT
            return f"{'kept' if kept else 'dropped'}: {record.decision.rule}", "good" if kept else "bad"
        case "evaluation_result":
            name = verdict_name(record.evaluation_result.result.verdict)
            return name, "good" if record.evaluation_result.passed else "bad"
        case "instruction":
            return record.instruction.category, "calm"
        case "example":
            return record.example.category, "calm"
        case "run_event":
            return state_name(record.run_event.state), "calm"
    return "", ""


async def family(reader: Reader, record: pb.Record, run: str) -> Family | None:
    """Load what is around a record. None: nothing belongs to it alone."""
    if record.kind in ALONE:
        return None
    return await load_family(reader, record.id, run, most=MOST)


def view(found: Family | None, record: pb.Record, run: str) -> RecordView:
    """Return a record's page.

    Args:
        found: What is around it. None: nothing, or it cannot be read.
        record: The record.
        run: The run to which the records around it are restricted, or "".
    """
    builder = _Builder(found) if found else None
    label, tone = badge(record)
    chart = charts.loss_chart(record.checkpoint.losses, name="loss") if record.HasField("checkpoint") else Markup("")
    nodes = [builder.node(root) for root in found.roots() if builder.shown(root)] if found and builder else []
    return RecordView(
        title=title(record),
        badge=label,
        tone=tone,
        facts=_facts(record),
        links=_links(record, found, run),
        parts=_parts(record, SHOWN),
        beside=_beside(found, record, run) if found else [],
        chart=chart,
        prompt=builder.prompt(record, SHOWN) if builder else None,
        trees=nodes,
        clipped=builder.clipped if builder else False,
        above=[node for node in _flat(nodes) if node.line and not node.focus],
    )


def _beside(found: Family, record: pb.Record, run: str) -> list[Beside]:
    known = [found.records[parent] for parent in record.parents if parent in found.records]
    match record.WhichOneof("body"):
        case "verdict":
            wanted = [one for one in known if one.HasField("response")]
        case "response":
            wanted = [one for one in found.below(record.id) if one.HasField("verdict")]
        case "example":
            wanted = [one for one in known if one.HasField("verdict")]
        case "trial":
            return _executed_together(known, run)
        case _:
            wanted = []
    return [
        Beside(
            title(one),
            *badge(one),
            texts.record_url(one.id, run),
            _executed(one),
            [part for part in _parts(one, SHOWN) if not (one.HasField("response") and part.label == "answer")],
        )
        for one in wanted
    ]


def _executed_together(responses: list[pb.Record], run: str) -> list[Beside]:
    """Return what a trial executed: the code of the first response with the tests of the second, if there is one."""
    return [
        Beside(
            f"{title(one)}, its {label}",
            *badge(one),
            texts.record_url(one.id, run),
            "",
            [part for part in _parts(one, SHOWN) if part.label == label],
        )
        for one, label in zip(responses, ("code", "tests"), strict=False)
    ]


def _executed(record: pb.Record) -> str:
    """Return how a program was executed, in one line; "" for other records."""
    if not record.HasField("verdict"):
        return ""
    facts = result_facts(record.verdict.result)
    names = ("exception", "failing line", "assertions", "ended with", "wall time", "isolation")
    return "; ".join(f"{name} {facts[name]}" for name in names if name in facts)


def title(record: pb.Record) -> str:
    """Return a record's kind for a heading, with its attempt."""
    name = kind_name(record.kind)
    if record.kind == pb.KIND_REJECTION:
        name = f"rejected {kind_name(record.rejection.rejected_kind)}"
    numbered = record.kind in (pb.KIND_RESPONSE, pb.KIND_EVALUATION_RESULT) or record.attempt
    return f"{name} {record.attempt}".capitalize() if numbered else name.capitalize()


def _flat(nodes: list[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from _flat(node.children)


def _facts(record: pb.Record) -> list[tuple[str, str]]:
    facts = texts.brief(record)
    message = body(record)
    if record.HasField("verdict"):
        facts |= result_facts(record.verdict.result)
    elif record.HasField("trial"):
        facts |= result_facts(record.trial.result)
    elif record.HasField("evaluation_result"):
        facts |= result_facts(record.evaluation_result.result)
    elif message is None:
        facts["note"] = "This console does not know the kind of this record: a newer release wrote it."
    origin = record.provenance
    facts |= {
        "model": f"{origin.model} at {origin.model_revision[:12]}" if origin.model else "",
        "engine": origin.engine,
        "attempt": str(record.attempt) if record.parents else "",
        "key": record.key,
        "made by": origin.producer,
        "made at": texts.when(origin.created_at, "%Y-%m-%d %H:%M:%S UTC"),
        "id": record.id,
        "content": record.content_hash,
    }
    return [(name, text) for name, text in facts.items() if text]


def _links(record: pb.Record, found: Family | None, run: str) -> list[tuple[str, str, str]]:
    links = []
    for parent in record.parents[:20]:
        known = (found.records.get(parent) or found.references.get(parent)) if found else None
        links.append(
            ("parent", kind_name(known.kind) if known is not None else "record", texts.record_url(parent, run))
        )
    if record.stage_config_id:
        name = found.stage(record) if found else ""
        links.append(("configuration", name or record.stage_config_id[:12], texts.record_url(record.stage_config_id)))
    if record.HasField("decision") and record.decision.duplicate_of:
        links.append(
            ("duplicate of", record.decision.duplicate_of[:12], texts.record_url(record.decision.duplicate_of))
        )
    if record.HasField("run"):
        links.append(("run", record.run.name or record.id[:12], f"/runs/{record.id}"))
    if record.HasField("experiment"):
        links.append(("experiment", record.experiment.name or record.id[:12], f"/experiments/{record.id}"))
    if record.HasField("evaluation_job"):
        links.append(("evaluation", record.id[:12], f"/evaluations/{record.id}"))
    return links


def _parts(record: pb.Record, most: int, place: str = "") -> list[Shown]:
    if record.HasField("verdict") or record.HasField("trial"):
        result = record.verdict.result if record.HasField("verdict") else record.trial.result
        said = (
            [render(record.id, "result.detail", result.detail, "plain", most, label="detail", place=place)]
            if result.detail
            else []
        )
        return said + texts.output(record.id, result, "result", most, place)
    found = texts.shown(record, most, place)
    if record.HasField("evaluation_result"):
        found += texts.output(record.id, record.evaluation_result.result, "result", most, place)
    return found


class _Builder:
    def __init__(self, found: Family) -> None:
        self._family = found
        self._line = found.line()
        self._left = MOST_GLANCED
        self.clipped = False
        """Texts of some records were left out."""

    def shown(self, record: pb.Record) -> bool:
        """Return whether a record belongs into the tree: prompts and completions are shown with what was read."""
        return record.kind not in ORIGINS or record.id == self._family.focus

    def node(self, root: pb.Record) -> Node:
        """Return a record with everything below it."""
        trees: list[Node] = []
        waiting = [(root, trees, 1)]
        while waiting:
            record, siblings, depth = waiting.pop()
            made = self._alone(record)
            siblings.append(made)
            below = []
            for child in self._family.below(record.id):
                if child.kind == pb.KIND_DECISION:
                    _, colour = badge(child)
                    made.decisions.append((decision_words(child.decision), colour, child.id))
                elif self.shown(child):
                    below.append(child)
            into = made.children if depth < DEEPEST else siblings
            waiting += [(child, into, depth + (into is not siblings)) for child in reversed(below)]
        return trees[0]

    def _alone(self, record: pb.Record) -> Node:
        """Return a record without what is below it."""
        label, tone = badge(record)
        focus = record.id == self._family.focus
        place = f"lineage, {record.id[:12]}"
        near = record.id in self._line or record.kind in (pb.KIND_VERDICT, pb.KIND_REJECTION, pb.KIND_RESPONSE)
        parts = _parts(record, GLANCED, place) if near and not focus and self._left > 0 else []
        prompt = self.prompt(record, GLANCED, place) if not focus and self._left > 0 else None
        self.clipped |= self._left <= 0
        self._left -= sum(len(part.html) for part in (*parts, *(prompt.parts if prompt else ())))
        return Node(
            record=record,
            title=title(record),
            badge=label,
            tone=tone,
            summary=texts.excerpt(judged.trial_words(record, self._family.records) or texts.summary(record), 120),
            focus=focus,
            line=record.id in self._line,
            parts=parts,
            decisions=[],
            prompt=prompt,
        )

    def prompt(self, record: pb.Record, most: int, place: str = "") -> PromptView | None:
        """Return how a record was generated, or None if it was not."""
        completion = record if record.kind == pb.KIND_COMPLETION else self._family.completion(record)
        if completion is None:
            return None
        written = completion.completion
        prefix = self._family.prefix(completion)
        origin = record.provenance if record.provenance.model else completion.provenance
        parts = []
        if prefix is not None:
            text = prefix.prompt_prefix.text
            parts.append(render(prefix.id, "text", text, "plain", most, label="few-shot examples", place=place))
        for path, text, label in (
            ("prompt_suffix", written.prompt_suffix, "then the prompt ends"),
            ("text", written.text, "completion"),
        ):
            if text and record is not completion:
                parts.append(render(completion.id, path, text, "plain", most, label=label, place=place))
        return PromptView(origin_facts(origin, written), tuple(parts), completion.id)
