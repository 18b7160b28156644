"""What a model writes about an item, and the records that are read from it.

A completion is a record of its own, which derives from prompt, model revision, sampling and seed alone. So each draw is
looked up twice before the model is asked: what was read from it under this configuration, and what was written. The
first is there when a run goes on, the second also when a better parser reads again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common import records
from codealign.common.errors import InvalidArgument
from codealign.common.text import encodable
from codealign.coordinator.ground.calls import Completions, finish_name, provenance
from codealign.coordinator.ground.faults import OF_THE_PROMPT, Faulty, Refused, RunFailed
from codealign.coordinator.pipelines.stage import Item, Writing
from codealign.coordinator.reading import sections
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.runs.asking import Asking, Draw, Question, completion_key
from codealign.coordinator.runs.context import DETAIL_CHARS, Context, internal_error
from codealign.coordinator.runs.prefixes import Prefixes
from codealign.coordinator.runs.prompting import number_key

_TOO_LONG = re.compile(r"context|too (?:long|large)|tokens|length", re.IGNORECASE)


@dataclass(frozen=True)
class Drawn:
    """A record that was read from what a model wrote."""

    item: Item
    attempt: int
    number: int
    """Among those that were read from one completion."""
    fresh: bool
    """It was made now: nothing can have been made of it yet."""


Deliver = Callable[[Drawn], None]


class NewerRecord(ValueError):
    """A record of a newer release, which this one cannot read."""


class Generation:
    """One writing stage of a run.

    Args:
        context: The run.
        stage: The stage.
        completions: Asks its model.
        prefixes: Of all stages.
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
        """Of prompts, not appended yet: where inference refuses everything, the cause is not in the prompts, and the
        breaker opens before any of them is rejected for good."""

    def key(self, parent_key: str, attempt: int, number: int = 0) -> str:
        """A child's key."""
        return self._asking.key(parent_key, attempt, number)

    async def draw(self, item: Item, attempts: Sequence[int], *, fresh: bool, deliver: Deliver) -> None:
        """Draw so often for an item; what can be read is delivered as it comes, what cannot is counted.

        Args:
            item: Of the parent stage.
            attempts: The draws' numbers.
            fresh: The item was made now: nothing was read for it yet.
            deliver: Called with each record of the stage.

        Raises:
            RunStopped: By the gate, where the model would have to be asked.
            RunFailed: A service gave an error that another try cannot mend.
        """
        try:
            question = self._asking.question(item)
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
            # It answers others: the fault is in this prompt.
            self._hold(item, owed, internal_error(fault, self.stage.makes))

    def _hold(self, item: Item, attempts: Iterable[int], rejection: pb.Rejection) -> None:
        """Reject draws that inference does not carry out, once it is known that it carries out others."""
        for attempt in sorted(attempts):
            self._refusals.append(self._rejected_prompt(item, attempt, rejection))
            self._count_rejection(rejection)

    async def settle(self) -> None:
        """Append the refusals that are still held back: inference has shown that it does not refuse everything."""
        held, self._refusals = self._refusals, []
        await self._context.store.append_all(held)

    async def _find(self, question: Question, draws: Mapping[int, Draw], *, fresh: bool, deliver: Deliver) -> list[int]:
        """Take what is in the store; the attempts that the model is to be asked for."""
        wanted = [draw.completion for draw in draws.values()]
        fates = {} if fresh else {attempt: self._asking.fate(question.item, draw) for attempt, draw in draws.items()}
        wanted += [each for fate in fates.values() for each in (fate.child, fate.unreadable, fate.refused)]
        found = await self._context.store.join(wanted)
        first = {attempt: found[fate.child] for attempt, fate in fates.items() if fate.child in found}
        children = await self._further(question.item, draws, first)
        left = []
        for attempt, draw in draws.items():
            completion = found.get(draw.completion)
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
        """All children of each draw that has one, in the order of their numbers.

        The first one is appended last, so where it is there, the others are.
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
        """The section of a completion that could be read."""
        read = sections.read(completion_of(completion), self.stage.section, self.settings.few_shots)
        return read if isinstance(read, str) else ""

    async def _keep(self, question: Question, draw: Draw, response: inf.GenerateResponse, deliver: Deliver) -> None:
        """Append what came back, then what is read from it."""
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
            # Where another run was first, its completion is the one that is read.
            kept = await self._context.store.append(record)
        except InvalidArgument as error:  # too large for the store
            await self._reject_prompt(question.item, draw.attempt, internal_error(error, self.stage.makes))
            return
        await self._read(question, draw, kept, deliver)

    async def _read(self, question: Question, draw: Draw, completion: pb.Record, deliver: Deliver) -> None:
        """Append what is read from a completion: the stage's records, or a Rejection."""
        item = question.item
        read: tuple[str, list[pb.Record]] | pb.Rejection
        try:
            read = self._parsed(question, draw, completion)
        except Exception as error:  # whatever a stage's code raises
            read = internal_error(error, self.stage.makes)
        if not isinstance(read, pb.Rejection):
            text, made = read
            try:
                # The first one last, and on its own: it stands for all of them, of which the store may refuse one.
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
        """The section and the records that it holds, or why there is none."""
        text = sections.read(completion_of(completion), self.stage.section, self.settings.few_shots)
        if isinstance(text, Rejected):
            return self._rejection(text)
        bodies = self.stage.parse(text, question.item, question.asked)
        if isinstance(bodies, Rejected):
            return self._rejection(bodies)
        return text, self._children(question.item, draw, completion, bodies)

    def _children(self, item: Item, draw: Draw, completion: pb.Record, bodies: Sequence[Message]) -> list[pb.Record]:
        if not bodies:
            raise ValueError(f"stage {self.stage.name!r} read no record and gave no reason")
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
        self._tally.finish(rejection.reason, fresh=fresh)
        if fresh:
            self._context.breaker.saw(self.stage.name, rejection.reason, rejection.detail)

    def _rejection(self, rejected: Rejected) -> pb.Rejection:
        detail = rejected.detail[:DETAIL_CHARS]
        return pb.Rejection(rejected_kind=self.stage.makes, reason=rejected.reason, detail=detail)


def _bear(record: pb.Record, completion: pb.Record) -> None:
    """What is read from a completion bears its tokens, so that they are counted by stage."""
    record.provenance.CopyFrom(completion.provenance)
    record.provenance.ClearField("producer")
    record.provenance.ClearField("created_at")


def completion_of(record: pb.Record) -> inf.Completion:
    """Return a completion record as inference gave it.

    Raises:
        NewerRecord: It ended for a reason that this release does not know.
    """
    body = record.completion
    name = f"FINISH_REASON_{body.finish_reason.upper()}"
    if name not in inf.FinishReason.keys():  # noqa: SIM118 - the enum's wrapper is no mapping
        raise NewerRecord(
            f"completion {record.id} has finish reason {encodable(body.finish_reason)!r}, which this program does not "
            "know: a newer release wrote it, and it takes that release to read it"
        )
    return inf.Completion(
        text=body.text,
        finish_reason=inf.FinishReason.Value(name),
        stop_string=body.stop_string,
        detail=body.detail,
    )


def _of_prompt(refusal: Refused) -> Rejected:
    """What a refusal of the prompt says. Endpoints put it in words of their own."""
    return Rejected("prompt-too-long" if _TOO_LONG.search(str(refusal)) else "prompt-refused", str(refusal))
