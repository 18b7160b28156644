"""Completions for an item, and the records parsed from them.

A completion is a record of its own that depends only on prompt, model revision, sampling and seed. Before the model is
called, each draw is therefore looked up twice: what was parsed from it under this configuration, and the completion.
The first is found when a run resumes, the second also when a newer parser reads the completions again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common import records, traces
from codealign.common.errors import InvalidArgument
from codealign.common.text import encodable
from codealign.coordinator.ground.calls import Completions, finish_name, provenance
from codealign.coordinator.ground.faults import OF_THE_PROMPT, Faulty, Refused, RunFailed
from codealign.coordinator.pipelines.stage import Item, Writing
from codealign.coordinator.reading import sections
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.runs.asking import Asking, Draw, Question, completion_key
from codealign.coordinator.runs.context import DETAIL_CHARS, Context, internal_error
from codealign.coordinator.runs.harvest import Spending
from codealign.coordinator.runs.prefixes import Prefixes
from codealign.coordinator.runs.prompting import number_key

_TOO_LONG = re.compile(r"context|too (?:long|large)|tokens|length", re.IGNORECASE)


@dataclass(frozen=True)
class Drawn:
    """A record parsed from a completion."""

    item: Item
    attempt: int
    number: int
    """Position among the records parsed from one completion."""
    fresh: bool
    """Whether it was created now, so that nothing can be derived from it yet."""


Deliver = Callable[[Drawn], None]


class NewerRecord(ValueError):
    """A record of a newer release that this release cannot read."""


class Generation:
    """One writing stage of a run.

    Args:
        context: The run.
        stage: The stage.
        completions: Calls the stage's model.
        prefixes: Prompt prefixes of all stages.
    """

    def __init__(self, context: Context, stage: Writing, completions: Completions, prefixes: Prefixes) -> None:
        self.stage = stage
        self.settings = context.settings.of(stage.name)
        self._context, self._completions, self._prefixes = context, completions, prefixes
        self._asking = Asking(context, stage)
        self._config_id = context.configs[stage.name].id
        self._sampling_id = context.configs.sampling(stage.name).id
        self._tally = context.progress[stage.name]
        self._refusals: list[pb.Record] = []
        """Refusals of prompts, not appended yet: if inference refuses everything, the prompts are not the cause, and
        the breaker opens before any of them is rejected permanently."""

    def key(self, parent_key: str, attempt: int, number: int = 0) -> str:
        """Return a child's key."""
        return self._asking.key(parent_key, attempt, number)

    async def draw(
        self, item: Item, attempts: Sequence[int], *, fresh: bool, deliver: Deliver, spent: Spending | None = None
    ) -> None:
        """Draw samples for an item, delivering parsed records as they arrive and counting rejections.

        Args:
            item: An item of the parent stage.
            attempts: Numbers of the draws.
            fresh: Whether the item was created now, so that nothing was parsed for it yet.
            deliver: Called with each record of the stage.
            spent: Counts the tokens of each completion, also of those found in the store.

        Raises:
            RunStopped: The gate stopped the work before a call to the model.
            RunFailed: A service returned an error that retrying cannot fix.
        """
        with traces.span(self.stage.name, {"record": item.record.id, "attempts": len(attempts)}):
            await self._draw(item, attempts, fresh=fresh, deliver=deliver, spent=spent)

    async def _draw(
        self, item: Item, attempts: Sequence[int], *, fresh: bool, deliver: Deliver, spent: Spending | None
    ) -> None:
        try:
            question = replace(self._asking.question(item), spent=spent)
            draws = {attempt: self._asking.draw(question, attempt) for attempt in attempts}
        except Exception as error:  # whatever a stage's code raises
            rejection = internal_error(error, self.stage.makes)
            for attempt in attempts:
                await self._reject_prompt(item, attempt, rejection)
            return
        await self._prefixes.ensure(question.shared.prefix_id, question.shared.prefix)
        left = await self._find(question, draws, fresh=fresh, deliver=deliver)
        if not left:
            return
        self._context.gate()
        request = self._asking.request(question, [draws[attempt] for attempt in left])
        owed = set(left)
        try:
            async with contextlib.aclosing(self._completions.of(request)) as responses:
                async for response in responses:
                    attempt = response.completion.attempt
                    owed.remove(attempt)
                    await self._keep(question, draws[attempt], response, deliver)
        except Refused as refusal:
            if refusal.field not in OF_THE_PROMPT:
                raise RunFailed(
                    f"inference refuses the settings of stage {self.stage.name!r}: {refusal} ({refusal.field})"
                ) from refusal
            rejection = self._rejection(_of_prompt(refusal))
            self._hold(item, owed, rejection)
        except Faulty as fault:
            if not self._completions.answers:
                raise
            # It answers other requests, so the fault is in this prompt.
            self._hold(item, owed, internal_error(fault, self.stage.makes))

    def _hold(self, item: Item, attempts: Iterable[int], rejection: pb.Rejection) -> None:
        """Hold back rejections of draws that inference does not carry out until it has carried out others."""
        for attempt in sorted(attempts):
            self._refusals.append(self._rejected_prompt(item, attempt, rejection))
            self._count_rejection(rejection)

    async def settle(self) -> None:
        """Append the refusals still held back: inference has shown that it does not refuse everything."""
        held, self._refusals = self._refusals, []
        await self._context.store.append_all(held)

    async def _find(self, question: Question, draws: Mapping[int, Draw], *, fresh: bool, deliver: Deliver) -> list[int]:
        """Process the draws found in the store and return the attempts that still need the model."""
        wanted = [draw.completion for draw in draws.values()]
        fates = {} if fresh else {attempt: self._asking.fate(question.item, draw) for attempt, draw in draws.items()}
        wanted += [each for fate in fates.values() for each in (fate.child, fate.unreadable, fate.refused)]
        found = await self._context.store.join(wanted)
        first = {attempt: found[fate.child] for attempt, fate in fates.items() if fate.child in found}
        children = await self._further(question.item, draws, first)
        left = []
        for attempt, draw in draws.items():
            completion = found.get(draw.completion)
            if completion is not None:
                self._count_tokens(question, completion)
            if attempt in children:
                try:
                    text = self._section(completion) if completion is not None else ""
                except NewerRecord as error:
                    assert completion is not None
                    await self._reject_completion(
                        question.item, attempt, completion, internal_error(error, self.stage.makes)
                    )
                    continue
                self._deliver(question.item, attempt, children[attempt], text, deliver, fresh=False)
            elif (fate := fates.get(attempt)) and (rejection := found.get(fate.unreadable) or found.get(fate.refused)):
                self._tally.finish(rejection.rejection.reason, fresh=False)
            elif completion is not None:
                await self._read(question, draw, completion, deliver)
            else:
                left.append(attempt)
        return left

    async def _further(
        self, item: Item, draws: Mapping[int, Draw], first: Mapping[int, pb.Record]
    ) -> dict[int, list[pb.Record]]:
        """Return all children of each draw that has one, in the order of their numbers.

        The first child is appended last, so if it exists, the others do too.
        """
        children = {attempt: [child] for attempt, child in first.items()}
        open_ones, number = list(children), 1
        while open_ones:
            ids = {
                attempt: self._asking.child_id(item, draws[attempt].completion, attempt, number)
                for attempt in open_ones
            }
            more = await self._context.store.join(ids.values())
            open_ones = [attempt for attempt in open_ones if ids[attempt] in more]
            for attempt in open_ones:
                children[attempt].append(more[ids[attempt]])
            number += 1
        return children

    def _section(self, completion: pb.Record) -> str:
        """Return the section of a completion that could be parsed."""
        read = sections.read(completion_of(completion), self.stage.section, self.settings.few_shots)
        return read if isinstance(read, str) else ""

    async def _keep(self, question: Question, draw: Draw, response: inf.GenerateResponse, deliver: Deliver) -> None:
        """Append a completion, then the records parsed from it."""
        if self._refusals:
            await self.settle()
        given, made = response.completion, provenance(response)
        made.seed = draw.seed
        try:
            record = pb.Record(
                kind=pb.KIND_COMPLETION,
                parents=[question.shared.prefix_id],
                stage_config_id=self._sampling_id,
                key=completion_key(question.suffix, draw.seed),
                provenance=made,
                completion=pb.Completion(
                    prompt_suffix=question.suffix,
                    text=given.text,
                    finish_reason=finish_name(given),
                    stop_string=given.stop_string,
                    detail=given.detail,
                ),
            )
            # If another run was first, its completion is the one to parse.
            kept = await self._context.store.append(record)
        except InvalidArgument as error:  # too large for the store
            await self._reject_prompt(question.item, draw.attempt, internal_error(error, self.stage.makes))
            return
        self._count_tokens(question, kept)
        await self._read(question, draw, kept, deliver)

    def _count_tokens(self, question: Question, completion: pb.Record) -> None:
        if question.spent is not None:
            shared = question.shared
            question.spent.add(self.stage.name, question.item.key, shared.prefix_id, len(shared.prefix), completion)

    async def _read(self, question: Question, draw: Draw, completion: pb.Record, deliver: Deliver) -> None:
        """Append what is parsed from a completion: the stage's records, or a Rejection."""
        item = question.item
        read: tuple[str, list[pb.Record]] | pb.Rejection
        try:
            read = self._parsed(question, draw, completion)
        except Exception as error:  # whatever a stage's code raises
            read = internal_error(error, self.stage.makes)
        if not isinstance(read, pb.Rejection):
            text, made = read
            try:
                # The first one last and separately: it stands for all of them, and the store may refuse any of them.
                further = await self._context.store.append_all(made[1:])
                ordered = [await self._context.store.append(made[0]), *further]
            except InvalidArgument as error:  # too large for the store
                read = internal_error(error, self.stage.makes)
            else:
                fresh = all(one is other for one, other in zip(ordered, made, strict=True))
                self._deliver(item, draw.attempt, ordered, text, deliver, fresh=fresh)
                return
        await self._reject_completion(item, draw.attempt, completion, read)

    def _parsed(
        self, question: Question, draw: Draw, completion: pb.Record
    ) -> tuple[str, list[pb.Record]] | pb.Rejection:
        """Return the section and the records parsed from it, or a Rejection."""
        text = sections.read(completion_of(completion), self.stage.section, self.settings.few_shots)
        if isinstance(text, Rejected):
            return self._rejection(text)
        bodies = self.stage.parse(text, question.item, question.asked)
        if isinstance(bodies, Rejected):
            return self._rejection(bodies)
        return text, self._children(question.item, draw, completion, bodies)

    def _children(self, item: Item, draw: Draw, completion: pb.Record, bodies: Sequence[Message]) -> list[pb.Record]:
        if not bodies:
            raise ValueError(f"stage {self.stage.name!r} parsed no record and gave no reason")
        field, made = records.BODY_OF_KIND[self.stage.makes], []
        for number, body in enumerate(bodies):
            record = self._blank(self.stage.makes, [item.record.id, completion.id], draw.attempt, number)
            getattr(record, field).CopyFrom(body)
            if not number:
                _bear(record, completion)
            else:
                record.provenance.model = completion.provenance.model
                record.provenance.model_revision = completion.provenance.model_revision
            made.append(record)
        return made

    def _blank(self, kind: pb.Kind.ValueType, parents: list[str], attempt: int, number: int = 0) -> pb.Record:
        return pb.Record(
            kind=kind, parents=parents, attempt=attempt, stage_config_id=self._config_id, key=number_key(number)
        )

    def _deliver(
        self, item: Item, attempt: int, kept: Sequence[pb.Record], text: str, deliver: Deliver, *, fresh: bool
    ) -> None:
        for number, record in enumerate(kept):
            self._tally.finish(None, fresh=fresh)
            if fresh:
                self._context.breaker.saw(self.stage.name, None)
            traces.mark("parsed", {"record": record.id, "attempt": attempt})
            line = {**item.line, self.stage.name: record}
            child = Item(record, self._asking.key(item.key, attempt, number), line, text)
            deliver(Drawn(child, attempt, number, fresh))

    async def _reject_completion(
        self, item: Item, attempt: int, completion: pb.Record, rejection: pb.Rejection
    ) -> None:
        record = self._blank(pb.KIND_REJECTION, [item.record.id, completion.id], attempt)
        record.rejection.CopyFrom(rejection)
        _bear(record, completion)
        await self._append_rejection(record)

    async def _reject_prompt(self, item: Item, attempt: int, rejection: pb.Rejection) -> None:
        await self._append_rejection(self._rejected_prompt(item, attempt, rejection))

    def _rejected_prompt(self, item: Item, attempt: int, rejection: pb.Rejection) -> pb.Record:
        record = self._blank(pb.KIND_REJECTION, [item.record.id], attempt)
        record.rejection.CopyFrom(rejection)
        return record

    async def _append_rejection(self, record: pb.Record) -> None:
        kept = await self._context.store.append(record)
        self._count_rejection(kept.rejection, fresh=kept is record)

    def _count_rejection(self, rejection: pb.Rejection, *, fresh: bool = True) -> None:
        traces.mark("rejected", {"reason": rejection.reason})
        self._tally.finish(rejection.reason, fresh=fresh)
        if fresh:
            self._context.breaker.saw(self.stage.name, rejection.reason, rejection.detail)

    def _rejection(self, rejected: Rejected) -> pb.Rejection:
        detail = rejected.detail[:DETAIL_CHARS]
        return pb.Rejection(rejected_kind=self.stage.makes, reason=rejected.reason, detail=detail)


def _bear(record: pb.Record, completion: pb.Record) -> None:
    """Copy the completion's provenance to a record parsed from it, so that tokens are counted by stage."""
    record.provenance.CopyFrom(completion.provenance)
    record.provenance.ClearField("producer")
    record.provenance.ClearField("created_at")


def completion_of(record: pb.Record) -> inf.Completion:
    """Convert a completion record to inference's message.

    Raises:
        NewerRecord: The finish reason is unknown to this release.
    """
    body = record.completion
    name = f"FINISH_REASON_{body.finish_reason.upper()}"
    if name not in inf.FinishReason.keys():  # noqa: SIM118 - the enum's wrapper is no mapping
        raise NewerRecord(
            f"completion {record.id} has finish reason {encodable(body.finish_reason)!r}, which this release does not "
            "know: a newer release wrote it and is needed to read it"
        )
    return inf.Completion(
        text=body.text,
        finish_reason=inf.FinishReason.Value(name),
        stop_string=body.stop_string,
        detail=body.detail,
    )


def _of_prompt(refusal: Refused) -> Rejected:
    """Classify a refusal of the prompt. Endpoints word it differently."""
    return Rejected("prompt-too-long" if _TOO_LONG.search(str(refusal)) else "prompt-refused", str(refusal))
