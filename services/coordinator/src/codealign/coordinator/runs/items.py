"""Processing of a run's items through the pipeline's stages, up to the candidates for rows."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import traces
from codealign.coordinator.ground import windows
from codealign.coordinator.ground.calls import Completions
from codealign.coordinator.ground.faults import RunFailed, RunStopped, decisive_error
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.pipelines import INTERNAL_ERROR
from codealign.coordinator.pipelines.stage import CONTESTED, CONTRADICTED, Item, Stage, Writing
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.runs.bounded import BoundedTasks
from codealign.coordinator.runs.comparison import Comparison, Judged
from codealign.coordinator.runs.config import ROW_RULES
from codealign.coordinator.runs.context import Context, decision
from codealign.coordinator.runs.execution import Execution
from codealign.coordinator.runs.generation import Drawn, Generation
from codealign.coordinator.runs.groups import Candidate, Group, packed, parent_of, root_of
from codealign.coordinator.runs.harvest import Attempt, Harvest, Spending
from codealign.coordinator.runs.prefixes import Prefixes
from codealign.coordinator.runs.seeds import judged_seeds
from codealign.coordinator.runs.strategies import EXECUTED, STRATEGIES
from codealign.coordinator.settings import CoordinatorSettings

SELECTED = "seed.selected"
_DECISIONS_IN_FLIGHT = 1000
"""Maximum decisions on dropped seeds that are being written to the store."""


class Items:
    """The items of a run in progress.

    Args:
        context: The run.
        services: Services that it calls.
        settings: Limits on concurrent work.
    """

    def __init__(self, context: Context, services: Services, settings: CoordinatorSettings) -> None:
        self._context, self._pipeline = context, context.pipeline
        self._strategy = STRATEGIES[context.run.selection.strategy]
        self._most_seeds = settings.seeds_in_flight
        self._samples = windows.of_inference(services.inference, settings.generations_in_flight)
        self._programs = windows.of_sandbox(services.sandbox, settings.executions_in_flight)
        used = {"inference": bool(self._pipeline.writing), "sandbox": self._pipeline.execution is not None}
        found = {"inference": self._samples, "sandbox": self._programs}
        context.progress.windows = {name: window for name, window in found.items() if used[name]}
        prefixes = Prefixes(context.store)
        self._generations = {
            stage.name: Generation(
                context,
                stage,
                Completions(
                    services.inference,
                    context.progress[stage.name],
                    self._samples,
                    context.gate,
                    settings.generation_timeout_seconds,
                    context.store.waiting,
                    context.progress.inference,
                ),
                prefixes,
            )
            for stage in self._pipeline.writing
        }
        self._candidates = self._generations.get(self._pipeline.candidates.name)
        """The stage that generates the candidates. None: they are the records of the collection."""
        self._execution: Execution | None = None
        if (stage := self._pipeline.execution) is not None:
            self._execution = Execution(context, stage, services.sandbox, self._programs)
        self._comparison: Comparison | None = None
        if self._strategy.compares and self._execution is not None and self._candidates is not None:
            self._comparison = Comparison(context, self._execution)
        self.stopped = 0
        """Number of items that the gate stopped."""

    async def all_seeds(self) -> list[Group]:
        """Take every selected seed through the stages and return the groups for the selection.

        Raises:
            RunFailed: No seed meets the rules, or a service returned an error that retrying cannot fix.
            RunStopped: The run must stop; all in-flight work is finished.
        """
        harvest = Harvest()
        async with self.selected_seeds() as seeds, BoundedTasks(self.seeds_in_flight) as tasks:
            async for seed in seeds:
                if not await self.may_go_on():
                    break
                await tasks.start(self.open(seed, harvest))
        self.check_stopped()
        return harvest.groups

    @contextlib.asynccontextmanager
    async def selected_seeds(self) -> AsyncIterator[AsyncGenerator[pb.Record]]:
        """Yield the seeds that meet the rules, in order; decisions on the others are recorded meanwhile.

        Raises:
            RunFailed: No seed meets the rules.
        """
        async with (
            BoundedTasks(lambda: _DECISIONS_IN_FLIGHT) as decisions,
            contextlib.aclosing(self._selected_seeds(decisions)) as seeds,
        ):
            yield seeds

    async def _selected_seeds(self, decisions: BoundedTasks) -> AsyncGenerator[pb.Record]:
        config_id, count = self._context.configs[self._pipeline.seeds.name].id, 0
        async with contextlib.aclosing(judged_seeds(self._context)) as seeds:
            async for seed, drop in seeds:
                if drop is not None:
                    await decisions.start(self._append(decision([seed.id], config_id, drop)))
                    continue
                count += 1
                yield seed
        if not count:
            raise RunFailed(
                f"none of the {self._pipeline.seeds.plural} of collection {self._context.run.seeds.collection!r} meets "
                f"the rules; {self._pipeline.seeds.advice}"
            )

    def check_stopped(self) -> None:
        """Raise RunStopped if the gate stopped an item."""
        if self.stopped:
            raise RunStopped(f"{self.stopped} items are not finished")

    async def open(self, seed: pb.Record, harvest: Harvest) -> None:
        """Take a seed through the stages; for a run with a target, up to the first round of candidates."""
        await self._guarded(self._through(seed, harvest))

    async def next_round(self, group: Group, harvest: Harvest) -> None:
        """Draw another round of a group's candidates."""
        await self._guarded(self._next_round(group, harvest))

    async def _next_round(self, group: Group, harvest: Harvest) -> None:
        ids = group.ids
        found = await self._context.store.get(ids)
        with traces.resumed([self._context.record.id, root_of(group, self._pipeline)]):
            await self._draw_round(group, parent_of(group, found, self._pipeline), harvest, fresh=False)

    async def settle_verdicts(self) -> None:
        """Record items without a verdict as undecided for this run, because row selection starts now."""
        if self._execution is not None:
            await self._execution.settle()

    async def settle(self) -> None:
        """Append the records that the stages still hold back, now that the run is complete."""
        for generation in self._generations.values():
            await generation.settle()

    @property
    def candidates(self) -> Generation:
        """The stage that generates the candidates.

        Raises:
            LookupError: They are the records of the collection.
        """
        if self._candidates is None:
            raise LookupError("no stage generates the candidates")
        return self._candidates

    def key(self, group: Group, candidate: Candidate) -> str:
        """Return a candidate's key, which everything random about it derives from."""
        if self._candidates is None:
            return group.key
        return self._candidates.key(group.key, candidate.attempt, candidate.number)

    def seeds_in_flight(self) -> int:
        """Return the current limit on seeds between their first and last stage."""
        return windows.items_in_flight(self._most_seeds, self._samples, self._programs)

    async def _append(self, record: pb.Record) -> bool:
        """Append a record and return whether the store did not hold it before."""
        return await self._context.store.append(record) is record

    async def may_go_on(self) -> bool:
        """Return whether a new item may start."""
        return not self.stopped and await self._is_through(self._pass_gate())

    async def _pass_gate(self) -> None:
        self._context.gate()

    async def _is_through(self, work: Awaitable[None]) -> bool:
        """Process one item; return False if it was stopped, which must not cancel concurrent work."""
        try:
            await work
        except RunStopped:
            self.stopped += 1
            return False
        return True

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Process one item as a task."""
        try:
            await self._is_through(work)
        except BaseExceptionGroup as group:
            raise decisive_error(group) from None

    async def _through(self, seed: pb.Record, harvest: Harvest) -> None:
        """Record that a seed was selected and take it through the stages."""
        context, stage = self._context, self._pipeline.seeds
        selected = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule=SELECTED, detail="meets every rule")
        record = pb.Record(
            kind=pb.KIND_DECISION,
            parents=[seed.id, context.record.id],
            stage_config_id=context.configs[stage.name].id,
            decision=selected,
        )
        run_id = context.record.id
        with traces.item_span("item", [run_id, seed.id], {"run": run_id, "record": seed.id}):
            line = await self._line(seed)
            derived = [each.id for each in line.values() if each is not seed]
            # The instructions of a run's collection are those that it made.
            own = [] if seed.kind == pb.KIND_INSTRUCTION else [seed.id]
            await context.store.join(filter(None, [*derived, *own, seed.provenance.import_id]))
            await context.store.append(record)
            item = Item(seed, seed.id, line)
            if stage is self._pipeline.candidates:
                await self._choose_from(item, harvest)
            else:
                await self._go_on(item, stage, harvest, fresh=False)

    async def _line(self, record: pb.Record) -> Mapping[str, pb.Record]:
        """Return a record of the collection after what it derives from, as far as the stage names that."""
        stage, at = self._pipeline.seeds, record
        found = [(stage.name, record)]
        while stage.ancestors and at.parents:
            there = await self._context.store.get(at.parents[:1])
            if not there or (at := there[at.parents[0]]).kind not in stage.ancestors:
                break
            found.append((stage.ancestors[at.kind], at))
        return dict(reversed(found))

    async def _choose_from(self, item: Item, harvest: Harvest) -> None:
        """Judge a record of the collection as a candidate; it is the only one of its group."""
        # Several responses to one instruction share the key, so that they count as siblings rather than duplicates.
        key = item.record.parents[0] if item.record.parents else item.key
        group = Group(packed(each.id for each in item.line.values()), key, drawn=1)
        await self._judge(Drawn(item, 0, 0, fresh=False), group.eligible, harvest)
        harvest.groups.append(group)

    async def _go_on(self, item: Item, stage: Stage, harvest: Harvest, *, fresh: bool) -> None:
        """Process everything that follows from an item of a stage, up to the candidates."""
        for child in self._pipeline.children(stage):
            if child is self._pipeline.candidates:
                group = Group(packed(record.id for record in item.line.values()), item.key)
                if harvest.measured is None:
                    await self.draw_on(group, item, fresh=fresh)
                else:
                    group.labels = _labels(item)
                    await self._draw_round(group, item, harvest, fresh=fresh)
                harvest.groups.append(group)
            else:
                await self._all_children(child, item, harvest, fresh=fresh)

    async def _all_children(self, stage: Writing, item: Item, harvest: Harvest, *, fresh: bool) -> None:
        generation = self._generations[stage.name]
        async with asyncio.TaskGroup() as tasks:

            def deliver(drawn: Drawn) -> None:
                tasks.create_task(self._guarded(self._follow(stage, drawn, harvest)))

            attempts, spent = range(generation.settings.attempts), _spent(harvest)
            await self._guarded(generation.draw(item, attempts, fresh=fresh, deliver=deliver, spent=spent))

    async def _follow(self, stage: Writing, drawn: Drawn, harvest: Harvest) -> None:
        """Continue with a parsed record unless a rule drops it."""
        if await self._meets_rules(stage, drawn.item):
            await self._go_on(drawn.item, stage, harvest, fresh=drawn.fresh)

    async def _meets_rules(self, stage: Writing, item: Item) -> bool:
        """Return whether an item meets all rules of its stage."""
        context, tally = self._context, self._context.progress[stage.name]
        try:
            drop = stage.drop(item, context.settings, context.benchmarks)
        except Exception as error:  # whatever a stage's code raises
            await context.reject(stage, [item.record.id], context.configs[ROW_RULES].id, error)
            tally.drop_kept(INTERNAL_ERROR)
            return False
        if drop is not None:
            # Under the stage's configuration, so that it counts for the stage. The rules' settings belong to the run,
            # which is therefore a parent.
            parents = [item.record.id, context.record.id]
            fresh = await self._append(decision(parents, context.configs[stage.name].id, drop))
            tally.drop_kept(drop.rule, fresh=fresh)
        return drop is None

    async def draw_on(self, group: Group, item: Item, *, fresh: bool = False) -> bool:
        """Draw rounds of candidates until another is eligible or no attempts are left; return whether one is.

        Raises:
            RunStopped: The run must stop; all in-flight work is finished.
        """
        if self._candidates is None:
            return False
        if self._comparison is not None:  # once: further draws would have to be compared with these
            return not group.judgement and await self._draw_compared(self._comparison, group, item, fresh=fresh)
        eligible, harvest = len(group.eligible), Harvest()
        while group.drawn < self._candidates.settings.attempts and (
            self._strategy.draws_all or len(group.eligible) == eligible
        ):
            await self._draw_round(group, item, harvest, fresh=fresh)
        return len(group.eligible) > eligible

    async def _draw_compared(self, comparison: Comparison, group: Group, item: Item, *, fresh: bool) -> bool:
        """Draw rounds of candidates until the attempts so far agree enough, or no attempts are left."""
        harvest, judged = Harvest(), None
        most = self.candidates.settings.attempts
        while judged is None and group.drawn < most:
            await self._draw_round(group, item, harvest, fresh=fresh)
            judged = await comparison.judge(harvest.attempts, last=group.drawn == most)
        if judged is None:
            return False
        group.judgement, group.eligible = packed([judged.record.id]), judged.eligible
        await self._drop_others(harvest, judged)
        return bool(judged.eligible)

    async def _drop_others(self, harvest: Harvest, judged: Judged) -> None:
        """Record why candidates that met every rule may not become a row after all."""
        stage, kept = self._pipeline.selection, {candidate.record for candidate in judged.eligible}
        config_id = self._context.configs[stage.name].id
        rule = CONTESTED if judged.record.judgement.is_contested else CONTRADICTED
        sentences = dict(zip(judged.record.parents, judged.record.judgement.attempts, strict=True))
        decisions = []
        for each in harvest.attempts:
            if each.eligible and each.candidate.record not in kept:
                record_id = each.item.record.id
                # Another run may draw more attempts, and judge otherwise.
                about, drop = [record_id, self._context.record.id], Drop(rule, sentences[record_id].sentence)
                decisions.append(decision(about, config_id, drop))
                self._context.progress[stage.name].finish(rule)
        await self._context.store.append_all(decisions)

    async def _draw_round(self, group: Group, item: Item, harvest: Harvest, *, fresh: bool) -> None:
        """Draw a group's next round of candidates: all of them if the strategy draws all."""
        stage = self.candidates
        size = stage.settings.attempts if self._strategy.draws_all else stage.settings.round_size
        end = min(group.drawn + size, stage.settings.attempts)
        group.eligible += await self._round(stage, item, range(group.drawn, end), harvest, fresh=fresh)
        group.drawn = end

    async def _round(
        self, stage: Generation, item: Item, attempts: range, harvest: Harvest, *, fresh: bool
    ) -> list[Candidate]:
        """Draw these attempts, judge each as it arrives, and return the eligible ones in order of preference."""
        judging: list[asyncio.Task[tuple[bool, Candidate | None]]] = []
        async with asyncio.TaskGroup() as tasks:

            def deliver(drawn: Drawn) -> None:
                judging.append(tasks.create_task(self._judged(drawn, harvest)))

            drawn = await self._is_through(
                stage.draw(item, attempts, fresh=fresh, deliver=deliver, spent=_spent(harvest))
            )
        judged = [task.result() for task in judging]
        if not drawn or not all(through for through, _ in judged):
            raise RunStopped("the round is not finished")
        found = [candidate for _, candidate in judged if candidate is not None]
        return self._strategy.ordered(
            found, self._context.run, lambda each: stage.key(item.key, each.attempt, each.number)
        )

    async def _judged(self, drawn: Drawn, harvest: Harvest) -> tuple[bool, Candidate | None]:
        """Return whether judging finished, and the candidate if it may become a row."""
        found: list[Candidate] = []
        through = await self._is_through(self._judge(drawn, found, harvest))
        return through, found[0] if found else None

    async def _judge(self, drawn: Drawn, found: list[Candidate], harvest: Harvest) -> None:
        """Judge a candidate and add it to `found` if it may become a row."""
        context, item, made_by = self._context, drawn.item, self._pipeline.candidates
        if isinstance(made_by, Writing) and not await self._meets_rules(made_by, item):
            return
        verdict: pb.Record | None = None
        if self._execution is not None:
            verdict = await self._execution.judge(item, fresh=drawn.fresh)
            if verdict is None:
                return
        candidate = Candidate(
            drawn.attempt, drawn.number, packed([item.record.id]), packed([verdict.id] if verdict is not None else [])
        )
        takes = self._strategy.takes(_verdict_of(verdict))
        met = takes and await self._meets_row_rules(item)
        if self._comparison is not None and verdict is not None and _verdict_of(verdict) in EXECUTED:
            harvest.attempts.append(Attempt(item, verdict, candidate, met))
        if not met:
            return
        found.append(candidate)
        if harvest.measured is not None:
            with contextlib.suppress(Exception):  # selection compares it again, and records the error
                compared = self._pipeline.selection.compared(item, context.settings)
                harvest.measured.compared[candidate.record] = compared

    async def _meets_row_rules(self, item: Item) -> bool:
        """Return whether a candidate meets the rules for rows."""
        context = self._context
        rules, stage = context.configs[ROW_RULES].id, self._pipeline.selection
        tally = context.progress[stage.name]
        try:
            drop = stage.drop(item, context.settings, context.benchmarks)
        except Exception as error:  # whatever a stage's code raises
            await context.reject(stage, [item.record.id], rules, error)
            tally.finish(INTERNAL_ERROR)
            return False
        context.breaker.saw(stage.name, None)
        if drop is not None:
            fresh = await self._append(decision([item.record.id], rules, drop))
            tally.finish(drop.rule, fresh=fresh)
        return drop is None


def _spent(harvest: Harvest) -> Spending | None:
    return harvest.measured.spent if harvest.measured is not None else None


def _labels(item: Item) -> tuple[str, str]:
    """Return difficulty and category of the last instruction on an item's line."""
    found = [record.instruction for record in item.line.values() if record.HasField("instruction")]
    return (sys.intern(found[-1].difficulty), sys.intern(found[-1].category)) if found else ("", "")


def _verdict_of(verdict: pb.Record | None) -> sb.Verdict.ValueType | None:
    return verdict.verdict.result.verdict if verdict is not None else None
