"""The final selection: each group's preferred candidate, then de-duplication, in the order of the groups' keys.

The order is fixed, so the same verdicts give the same rows, whenever and in whatever order they arrived. If a row is
dropped as a duplicate, the group's next candidate takes its place, drawn anew if necessary; rows kept earlier stay.
With the near-duplicate strategy "band-collision", a dropped row continues to link others to the row that it collided
with, but only by the text that it was dropped for: its group's next candidate has the same instruction and must get a
chance. Two kept rows stay even if a later one joins their clusters.

Groups are read and decided in batches, one after another, so that only one batch of records is in memory at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import traces
from codealign.common.errors import InvalidArgument
from codealign.common.sequences import batched
from codealign.coordinator import metrics
from codealign.coordinator.ground.faults import RunStopped
from codealign.coordinator.pipelines import INTERNAL_ERROR, kind_name
from codealign.coordinator.pipelines.stage import NOT_CHOSEN, TARGET_REACHED, Item, Writing
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.runs.bounded import BoundedTasks
from codealign.coordinator.runs.context import Context, decision
from codealign.coordinator.runs.groups import Candidate, Group, parent_of, root_of, there
from codealign.coordinator.runs.judged_rows import describe, stronger
from codealign.coordinator.runs.offers import Offers
from codealign.coordinator.runs.strategies import STRATEGIES

CHOSEN = "selection.chosen"
BATCH = 100
"""Number of candidates that are read and decided together."""
_ItemT = TypeVar("_ItemT")

KeyOf = Callable[[Group, Candidate], str]
"""Returns a candidate's key."""
DrawOn = Callable[[Group, Item], Awaitable[bool]]
"""Draws more candidates of a group and returns whether another is eligible."""


@dataclass(frozen=True, eq=False)
class Turn:
    """A group's candidate that is offered to de-duplication."""

    group: Group
    rank: int

    @property
    def candidate(self) -> Candidate:
        """The candidate."""
        return self.group.eligible[self.rank]


class Selection:
    """Selects the rows of one run.

    Args:
        context: The run.
        key_of: Returns a candidate's key.
        draw_on: Draws more candidates of a group.
        in_flight: Returns the current limit on groups that are drawn for concurrently.
    """

    def __init__(self, context: Context, key_of: KeyOf, draw_on: DrawOn, in_flight: Callable[[], int]) -> None:
        self._context, self._key_of, self._draw_on, self._in_flight = context, key_of, draw_on, in_flight
        self._stage, self._candidates = context.pipeline.selection, context.pipeline.candidates
        self._config_id = context.configs[self._stage.name].id
        self._tally = context.progress[self._stage.name]
        settings = context.run.selection
        self._strategy = STRATEGIES[settings.strategy]
        self._offers = Offers(settings, self._stage.duplicate_rules)
        self._most = 0
        """Rows to keep at most. 0: all."""
        self.chosen: list[Group] = []
        """The group of each row so far."""
        self._with_row: set[tuple[str, bytes]] = set()
        """Key and line of the groups with a row. Groups of records of a collection may share a key."""

    async def choose(self, groups: Sequence[Group]) -> int:
        """Append the decisions and the Example records, and return the number of rows.

        Raises:
            RunStopped: The gate stopped the work between two batches or before more draws.
            RunFailed: A record of the run is missing from the store, or a service returned an error.
        """
        offered = sorted((group for group in groups if group.eligible), key=lambda group: (group.key, group.line))
        turns = [turn for group in offered for turn in self._turns(group)]
        self._tally.expected = len(turns)
        while turns:
            fallen: list[Turn] = []
            for batch in batched(turns, BATCH):
                self._context.gate()
                with self._tally.working():
                    fallen += await self._offer_all(batch)
            turns = [] if self._strategy.several else await self._nexts(fallen)
        return len(self.chosen)

    async def choose_in_order(self, turns: Sequence[Turn], most: int) -> int:
        """Decide candidates in the given order, and return the number of rows of all calls so far.

        Args:
            turns: The candidates; those of a group that has a row by then are left out.
            most: Rows to keep at most; further candidates are dropped. 0: all.

        Raises:
            RunStopped: The gate stopped the work between two batches.
            RunFailed: A record of the run is missing from the store.
        """
        self._most = most
        self._tally.expected += len(turns)
        for batch in batched(turns, BATCH):
            self._context.gate()
            with self._tally.working():
                await self._offer_all(batch)
        return len(self.chosen)

    def _turns(self, group: Group) -> Iterator[Turn]:
        for rank in range(len(group.eligible) if self._strategy.several else 1):
            yield Turn(group, rank)

    async def _nexts(self, fallen: Sequence[Turn]) -> list[Turn]:
        """Return the next candidate of each group whose candidate was dropped, in order; skip exhausted groups."""
        there = [turn.rank + 1 < len(turn.group.eligible) for turn in fallen]
        missing = [number for number, has_next in enumerate(there) if not has_next]

        stopped: list[RunStopped] = []

        async def draw(number: int, item: Item) -> None:
            group = fallen[number].group
            try:
                with traces.resumed(self._trace(group)):
                    there[number] = await self._draw_on(group, item)
            except RunStopped as error:  # must not cancel concurrent work
                stopped.append(error)

        async with BoundedTasks(self._in_flight) as tasks:
            for batch in batched(missing, BATCH):
                lines = [fallen[number].group.ids for number in batch]
                found = await self._context.store.get(record_id for line in lines for record_id in line)
                for number in batch:
                    if not stopped:
                        await tasks.start(draw(number, parent_of(fallen[number].group, found, self._context.pipeline)))
        if stopped:
            raise stopped[0]
        return [Turn(turn.group, turn.rank + 1) for turn, has_next in zip(fallen, there, strict=True) if has_next]

    def _trace(self, group: Group) -> list[str]:
        """Return what identifies the trace of a group's item."""
        return [self._context.record.id, root_of(group, self._context.pipeline)]

    async def _offer_all(self, batch: Sequence[Turn]) -> list[Turn]:
        """Decide a batch in its order and return the dropped candidates.

        If the store refuses a row, candidates dropped as its duplicates are offered again after the others.
        """
        lines = [turn.group.ids for turn in batch]
        wanted = [turn.candidate.record_id for turn in batch]
        wanted += [turn.group.judgement.hex() for turn in batch if turn.group.judgement]
        found = await self._context.store.get([*wanted, *(record_id for line in lines for record_id in line)])
        parents = {turn: parent_of(turn.group, found, self._context.pipeline) for turn in batch}
        fallen: set[Turn] = set()
        offered = batch
        while offered:
            dropped, refused = await self._offer_some(offered, parents, found, fallen)
            for record_id in refused:
                self._offers.forget(record_id)
            again = {turn for turn, drop in dropped if refused and _gives_way(drop, refused)}
            offered = [turn for turn, _ in dropped if turn in again]
            decisions = []
            for turn, drop in dropped:
                if turn not in again:
                    self._tally.finish(drop.rule)
                    with self._traced(turn.group, {"outcome": "dropped", "reason": drop.rule}):
                        pass
                    about = [turn.candidate.record_id]
                    if drop.rule == TARGET_REACHED:  # another run may take it
                        about.append(self._context.record.id)
                    decisions.append(decision(about, self._config_id, drop))
                    fallen.add(turn)
            await self._context.store.append_all(decisions)
        self._offers.leave(batch[-1].group.key)
        return [turn for turn in batch if turn in fallen]

    async def _offer_some(
        self,
        turns: Sequence[Turn],
        parents: Mapping[Turn, Item],
        found: Mapping[str, pb.Record],
        fallen: set[Turn],
    ) -> tuple[list[tuple[Turn, Drop]], set[str]]:
        """Offer candidates in their order and append the rows.

        Args:
            turns: The candidates.
            parents: The item of each candidate's group.
            found: The candidates' records.
            fallen: Candidates that end in an error are added to it.

        Returns:
            The drops, not recorded yet, and the ids of candidates whose rows the store refused.
        """
        examples: list[tuple[Turn, pb.Record]] = []
        dropped: list[tuple[Turn, Drop]] = []
        taken: set[tuple[str, bytes]] = set()
        """Groups that get a row now, unless the store refuses it."""
        for turn in turns:
            key = turn.group.key, turn.group.line
            if not self._strategy.several and (key in taken or key in self._with_row):
                continue
            record = there(found, turn.candidate.record_id)
            if self._most and len(self.chosen) + len(examples) >= self._most:
                dropped.append((turn, Drop(TARGET_REACHED, f"the run has its {self._most} rows")))
                continue
            try:
                judgement = there(found, turn.group.judgement.hex()) if turn.group.judgement else None
                example, drop = self._offer(turn, parents[turn], record, judgement)
            except Exception as error:  # whatever a stage's code raises
                await self._reject(record.id, error)
                fallen.add(turn)
                continue
            self._context.breaker.saw(self._stage.name, None)
            if drop is None:
                examples.append((turn, example))
                taken.add((turn.group.key, turn.group.line))
            else:
                dropped.append((turn, drop))
        appended = await asyncio.gather(*(self._append(turn, example) for turn, example in examples))
        decisions: list[pb.Record] = []
        refused: set[str] = set()
        for (turn, _), kept in zip(examples, appended, strict=True):
            if kept:
                self.chosen.append(turn.group)
                self._with_row.add((turn.group.key, turn.group.line))
                decisions += self._choice(turn)
            else:
                refused.add(turn.candidate.record_id)
                fallen.add(turn)
        await self._context.store.append_all(decisions)
        return dropped, refused

    async def _append(self, turn: Turn, example: pb.Record) -> bool:
        """Append a row and return whether the store accepted it."""
        try:
            with self._traced(turn.group, {"outcome": "kept"}):
                kept = await self._context.store.append(example)
            if kept is example:
                metrics.ROWS.inc()
        except InvalidArgument as error:  # too large
            await self._reject(turn.candidate.record_id, error)
            return False
        return True

    @contextlib.contextmanager
    def _traced(self, group: Group, attributes: traces.Attributes) -> Iterator[None]:
        """Continue the trace of a group's seed."""
        with (
            traces.resumed(self._trace(group)),
            traces.span(self._stage.name, {"record": group.ids[-1], **attributes}),
        ):
            yield

    def _offer(
        self, turn: Turn, parent: Item, record: pb.Record, judgement: pb.Record | None
    ) -> tuple[pb.Record, Drop | None]:
        """Return a candidate's row, and the rule that drops it as a duplicate, or None."""
        group, candidate = turn.group, turn.candidate
        if judgement is not None:
            record = stronger(record, judgement, candidate.verdict_id)
        item = Item(record, self._key_of(group, candidate), {**parent.line, self._candidates.name: record})
        # Before anything is remembered: an exception must leave no trace among the rows.
        example = self._example(item, candidate, group)
        if judgement is not None:
            describe(example.example, record.id, judgement)
            # Otherwise it would be the row that a run without comparison has made of the same response.
            example.key = judgement.id
        return example, self._offers.offer(self._stage.compared(item, self._context.settings), group.key)

    def _choice(self, turn: Turn) -> list[pb.Record]:
        """Return the decisions that follow from choosing a candidate: on it and on the others of its group.

        The choice belongs to the run: another run with more draws may choose differently, so the run is a second
        parent.
        """
        run_id, candidate = self._context.record.id, turn.candidate
        chosen = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule=CHOSEN, detail=self._why(turn))
        others = [] if self._strategy.several else turn.group.eligible[turn.rank + 1 :]
        not_chosen = Drop(NOT_CHOSEN, f"attempt {candidate.attempt} was chosen")
        self._tally.finish(None)
        for _ in others:
            self._tally.finish(NOT_CHOSEN)
        return [
            pb.Record(
                kind=pb.KIND_DECISION,
                parents=[candidate.record_id, run_id],
                stage_config_id=self._config_id,
                decision=chosen,
            ),
            *(decision([other.record_id, run_id], self._config_id, not_chosen) for other in others),
        ]

    def _why(self, turn: Turn) -> str:
        fell = f"; {turn.rank} before it fell to de-duplication" if turn.rank and not self._strategy.several else ""
        if not isinstance(self._candidates, Writing):
            return f"the {kind_name(self._candidates.makes)} meets the row rules"
        drawn, most = turn.group.drawn, self._context.settings.of(self._candidates.name).attempts
        return f"{self._strategy.why(turn.group, turn.rank)}{fell}; {drawn} of at most {most} were drawn"

    def _example(self, item: Item, candidate: Candidate, group: Group) -> pb.Record:
        example = pb.Example()
        example.CopyFrom(self._stage.example(item, self._context.settings, group.key))
        example.verdict_id = candidate.verdict_id
        example.model_revision = item.record.provenance.model_revision
        del example.lineage[:]
        example.lineage.extend(pb.LineageStep(stage=name, record_id=each.id) for name, each in item.line.items())
        parents = [item.record.id, candidate.verdict_id] if candidate.verdict else [item.record.id]
        return pb.Record(kind=pb.KIND_EXAMPLE, parents=parents, stage_config_id=self._config_id, example=example)

    async def _reject(self, record_id: str, error: Exception) -> None:
        await self._context.reject(self._stage, [record_id], self._config_id, error)
        self._tally.finish(INTERNAL_ERROR)


def _gives_way(drop: Drop, refused: Collection[str]) -> bool:
    """Return whether a drop no longer holds because these rows were refused."""
    return drop.duplicate_of in refused or drop.rule == TARGET_REACHED
