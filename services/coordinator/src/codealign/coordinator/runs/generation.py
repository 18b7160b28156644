"""Records that a model writes: looked up first, drawn when they are not there, read, and appended."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common import records
from codealign.common.clients import Clients
from codealign.coordinator.ground.calls import Completions, provenance
from codealign.coordinator.reading import sections
from codealign.coordinator.reading.parsing import REASONS, Rejected
from codealign.coordinator.pipelines.selfcodealign.templates import Prompt, Section
from codealign.coordinator.ground.faults import Refused
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.store import RunStore

Fill = Callable[[pb.Record, str], Rejected | None]
"""Given a record and the whole section that the model wrote: set the body, or say why it cannot be read."""
_TOO_LONG = re.compile(r"context|too (?:long|large)|tokens|length", re.IGNORECASE)


@dataclass
class Generation:
    """One generating stage of a run."""

    name: str
    """"concepts", "instructions" or "responses"."""
    made: pb.Kind.ValueType
    """The stage of the records that it makes."""
    config_id: str
    draws_id: str
    """Of what its draws depend on besides their parents; see `config.draws_id`."""
    settings: pb.GenerationSettings
    model: pb.ModelChoice
    section: Section
    store: RunStore
    clients: Clients
    tally: StageTally
    slots: asyncio.Semaphore
    """Calls to inference at once, over all stages."""
    gate: Callable[[], None]
    """Raises RunStopped when no new work may start."""
    seed: int
    timeout: float

    def key(self, parent_key: str, attempt: int = 0) -> str:
        """What everything random about a child derives from. A seed's key is its id.

        It is made as a record's id is, but rests on what the draws depend on alone: however completions come to be
        read, the same items get the same prompts and the same samples.
        """
        return records.derive_id(self.made, [parent_key], attempt=attempt, stage_config_id=self.draws_id)

    def group(self, parent_key: str) -> str:
        """The prefix group of an item: it follows from the item's key."""
        if self.settings.unpooled:
            return parent_key
        return str(records.seed_for(self.seed, self.name, "group", parent_key) % self.settings.prefix_groups)

    async def draw(
        self, parent: pb.Record, parent_key: str, attempts: Sequence[int], prompt: Prompt, fill: Fill
    ) -> AsyncIterator[pb.Record]:
        """The children of `parent`, one for each attempt, as they come: a record of `made`, or a Rejection."""
        config = self.config_id
        possible = {
            records.derive_id(stage, [parent.id], attempt=attempt, stage_config_id=config): attempt
            for attempt in attempts
            for stage in (self.made, pb.KIND_REJECTION)
        }
        there = await self.store.adopt(list(possible))
        for record_id, record in there.items():
            self._count(record, fresh=False)
            yield record
            attempts = [attempt for attempt in attempts if attempt != possible[record_id]]
        if not attempts:
            return
        self.gate()
        prefix_id = await self._prefix_id(prompt)
        left = set(attempts)
        request = self._request(parent_key, attempts, prompt, prefix_id)
        try:
            async with contextlib.aclosing(self._completions.of(request)) as responses:
                async for response in responses:
                    record = await self._read(parent, response, prompt, prefix_id, fill)
                    left.remove(record.attempt)
                    self._count(record, fresh=True)
                    yield record
        except Refused as refusal:
            if refusal.field != "prompt":
                raise
            for attempt in sorted(left):
                blank = self._blank(parent, attempt)
                record = await self._append_rejection(blank, _of_prompt(refusal), "")
                self._count(record, fresh=True)
                yield record

    @property
    def _completions(self) -> Completions:
        return Completions(self.clients, self.tally, self.slots, self.gate, self.timeout)

    def _request(self, parent_key: str, attempts: Sequence[int], prompt: Prompt, prefix_id: str) -> inf.GenerateRequest:
        settings = self.settings
        return inf.GenerateRequest(
            model=self.model.model,
            expected_revision=self.model.revision,
            prompt=prompt.text,
            samples=[inf.Sample(attempt=attempt, seed=self._sample_seed(parent_key, attempt)) for attempt in attempts],
            sampling=inf.SamplingParameters(
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=settings.max_tokens,
                stop=self.section.stop(settings.few_shots),
            ),
            prefix_key=prefix_id,
            prefix_chars=len(prompt.prefix),
        )

    async def _read(
        self, parent: pb.Record, response: inf.GenerateResponse, prompt: Prompt, prefix_id: str, fill: Fill
    ) -> pb.Record:
        """Append what a completion is: a record of `made`, or a Rejection."""
        completion = response.completion
        record = self._blank(parent, completion.attempt)
        record.provenance.CopyFrom(provenance(response))
        record.provenance.prompt_prefix_id = prefix_id
        record.provenance.prompt_suffix = prompt.suffix
        read = sections.read(completion, self.section, self.settings.few_shots)
        rejected = read if isinstance(read, Rejected) else fill(record, read)
        if rejected is None:
            return await self.store.append(record)
        return await self._append_rejection(record, rejected, completion.text)

    def _blank(self, parent: pb.Record, attempt: int) -> pb.Record:
        return pb.Record(kind=self.made, parents=[parent.id], attempt=attempt, stage_config_id=self.config_id)

    async def _append_rejection(self, record: pb.Record, rejected: Rejected, text: str) -> pb.Record:
        assert rejected.reason in REASONS
        record.kind = pb.KIND_REJECTION
        record.rejection.CopyFrom(
            pb.Rejection(rejected_kind=self.made, reason=rejected.reason, detail=rejected.detail, text=text)
        )
        return await self.store.append(record)

    async def _prefix_id(self, prompt: Prompt) -> str:
        record = pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix(text=prompt.prefix))
        return (await self.store.append(record)).id

    def _sample_seed(self, parent_key: str, attempt: int) -> int:
        return records.seed_for(self.seed, self.name, self.draws_id, parent_key, attempt)

    def _count(self, record: pb.Record, *, fresh: bool) -> None:
        rejected = record.kind == pb.KIND_REJECTION
        self.tally.finish(record.rejection.reason if rejected else None, fresh=fresh)


def _of_prompt(refusal: Refused) -> Rejected:
    """What a refusal of the prompt says. Endpoints put it in words of their own."""
    return Rejected("prompt-too-long" if _TOO_LONG.search(str(refusal)) else "prompt-refused", str(refusal))
