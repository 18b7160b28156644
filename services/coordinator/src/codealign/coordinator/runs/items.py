"""Processing of a run's items through the pipeline's stages, up to the candidates for rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import traces
from codealign.coordinator.ground import windows
from codealign.coordinator.ground.calls import Completions
from codealign.coordinator.ground.faults import RunFailed, RunStopped, decisive_error
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.pipelines import INTERNAL_ERROR, kind_name
from codealign.coordinator.pipelines.stage import Item, Stage, Writing
from codealign.coordinator.runs.bounded import BoundedTasks
from codealign.coordinator.runs.config import ROW_RULES
from codealign.coordinator.runs.context import Context, decision
from codealign.coordinator.runs.execution import Execution
from codealign.coordinator.runs.generation import Drawn, Generation
from codealign.coordinator.runs.groups import Candidate, Group, packed
from codealign.coordinator.runs.prefixes import Prefixes
from codealign.coordinator.runs.seeds import judged_seeds
from codealign.coordinator.runs.strategies import STRATEGIES
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
        self._stopped = 0
        """Number of items that the gate stopped."""

    async def all_seeds(self) -> list[Group]:
        """Take every selected seed through the stages and return the groups for the selection.

        Raises:
            RunFailed: No seed meets the rules, or a service returned an error that retrying cannot fix.
            RunStopped: The run must stop; all in-flight work is finished.
        """
        groups: list[Group] = []
        config_id, count = self._context.configs[self._pipeline.seeds.name].id, 0
        async with (
            contextlib.aclosing(judged_seeds(self._context)) as seeds,
            BoundedTasks(lambda: _DECISIONS_IN_FLIGHT) as decisions,
            BoundedTasks(self.seeds_in_flight) as tasks,
        ):
            async for seed, drop in seeds:
                if drop is not None:
                    await decisions.start(self._append(decision([seed.id], config_id, drop)))
                    continue
                count += 1
                if self._stopped or not await self._is_through(self._may_go_on()):
                    break
                await tasks.start(self._guarded(self._through(seed, groups)))
        if self._stopped:
            raise RunStopped(f"{self._stopped} items are not finished")
        if not count:
            kind = kind_name(self._pipeline.seeds.makes)
            advice = (
                "collect from another directory (`codealign seeds collect PATH`)"
                if kind == "seed"
                else "`codealign data dropped` says why"
            )
            raise RunFailed(
                f"no {kind} of collection {self._context.run.seeds.collection!r} meets the {kind} rules; {advice}"
            )
        return groups

    async def settle_verdicts(self) -> None:
        """Record items without a verdict as undecided for this run, because row selection starts now."""
        if self._execution is not None:
            await self._execution.settle()

    async def settle(self) -> None:
        """Append the records that the stages still hold back, now that the run is complete."""
        for generation in self._generations.values():
            await generation.settle()

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

    async def _may_go_on(self) -> None:
        self._context.gate()

    async def _is_through(self, work: Awaitable[None]) -> bool:
        """Process one item; return False if it was stopped, which must not cancel concurrent work."""
        try:
            await work
        except RunStopped:
            self._stopped += 1
            return False
        return True

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Process one item as a task."""
        try:
            await self._is_through(work)
        except BaseExceptionGroup as group:
            raise decisive_error(group) from None

    async def _through(self, seed: pb.Record, groups: list[Group]) -> None:
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
            await context.store.join(filter(None, [*(each.id for each in line.values()), seed.provenance.import_id]))
            await context.store.append(record)
            item = Item(seed, seed.id, line)
            if stage is self._pipeline.candidates:
                await self._choose_from(item, groups)
            else:
                await self._go_on(item, stage, groups, fresh=False)

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

    async def _choose_from(self, item: Item, groups: list[Group]) -> None:
        """Judge a record of the collection as a candidate; it is the only one of its group."""
        # Several responses to one instruction share the key, so that they count as siblings rather than duplicates.
        key = item.record.parents[0] if item.record.parents else item.key
        group = Group(packed(each.id for each in item.line.values()), key, drawn=1)
        await self._judge(Drawn(item, 0, 0, fresh=False), group.eligible)
        groups.append(group)

    async def _go_on(self, item: Item, stage: Stage, groups: list[Group], *, fresh: bool) -> None:
        """Process everything that follows from an item of a stage, up to the candidates."""
        for child in self._pipeline.children(stage):
            if child is self._pipeline.candidates:
                group = Group(packed(record.id for record in item.line.values()), item.key)
                await self.draw_on(group, item, fresh=fresh)
                groups.append(group)
            else:
                await self._all_children(child, item, groups, fresh=fresh)

    async def _all_children(self, stage: Writing, item: Item, groups: list[Group], *, fresh: bool) -> None:
        generation = self._generations[stage.name]
        async with asyncio.TaskGroup() as tasks:

            def deliver(drawn: Drawn) -> None:
                tasks.create_task(self._guarded(self._follow(stage, drawn, groups)))

            attempts = range(generation.settings.attempts)
            await self._guarded(generation.draw(item, attempts, fresh=fresh, deliver=deliver))

    async def _follow(self, stage: Writing, drawn: Drawn, groups: list[Group]) -> None:
        """Continue with a parsed record unless a rule drops it."""
        if await self._meets_rules(stage, drawn.item):
            await self._go_on(drawn.item, stage, groups, fresh=drawn.fresh)

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
        settings, eligible = self._candidates.settings, len(group.eligible)
        everything = self._strategy.draws_all
        while group.drawn < settings.attempts and (everything or len(group.eligible) == eligible):
            end = settings.attempts if everything else min(group.drawn + settings.round_size, settings.attempts)
            group.eligible += await self._round(self._candidates, item, range(group.drawn, end), fresh=fresh)
            group.drawn = end
        return len(group.eligible) > eligible

    async def _round(self, stage: Generation, item: Item, attempts: range, *, fresh: bool) -> list[Candidate]:
        """Draw these attempts, judge each as it arrives, and return the eligible ones in order of preference."""
        judging: list[asyncio.Task[tuple[bool, Candidate | None]]] = []
        async with asyncio.TaskGroup() as tasks:

            def deliver(drawn: Drawn) -> None:
                judging.append(tasks.create_task(self._judged(drawn)))

            drawn = await self._is_through(stage.draw(item, attempts, fresh=fresh, deliver=deliver))
        judged = [task.result() for task in judging]
        if not drawn or not all(through for through, _ in judged):
            raise RunStopped("the round is not finished")
        found = [candidate for _, candidate in judged if candidate is not None]
        return self._strategy.ordered(
            found, self._context.run, lambda each: stage.key(item.key, each.attempt, each.number)
        )

    async def _judged(self, drawn: Drawn) -> tuple[bool, Candidate | None]:
        """Return whether judging finished, and the candidate if it may become a row."""
        found: list[Candidate] = []
        through = await self._is_through(self._judge(drawn, found))
        return through, found[0] if found else None

    async def _judge(self, drawn: Drawn, found: list[Candidate]) -> None:
        """Judge a candidate and add it to `found` if it may become a row."""
        context, item, made_by = self._context, drawn.item, self._pipeline.candidates
        if isinstance(made_by, Writing) and not await self._meets_rules(made_by, item):
            return
        verdict: pb.Record | None = None
        if self._execution is not None:
            verdict = await self._execution.judge(item, fresh=drawn.fresh)
            if verdict is None:
                return
        if not self._strategy.takes(_verdict_of(verdict)):
            return
        rules, stage = context.configs[ROW_RULES].id, self._pipeline.selection
        tally = context.progress[stage.name]
        try:
            drop = stage.drop(item, context.settings, context.benchmarks)
        except Exception as error:  # whatever a stage's code raises
            await context.reject(stage, [item.record.id], rules, error)
            tally.finish(INTERNAL_ERROR)
            return
        context.breaker.saw(stage.name, None)
        if drop is not None:
            fresh = await self._append(decision([item.record.id], rules, drop))
            tally.finish(drop.rule, fresh=fresh)
            return
        verdict_id = verdict.id if verdict is not None else ""
        found.append(Candidate(drawn.attempt, drawn.number, packed([item.record.id]), packed([verdict_id])))


def _verdict_of(verdict: pb.Record | None) -> sb.Verdict.ValueType | None:
    return verdict.verdict.result.verdict if verdict is not None else None
