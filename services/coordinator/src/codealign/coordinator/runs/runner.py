"""Carries a run out: every seed goes through the pipeline's stages, then rows are chosen and published.

Nothing waits for a chunk: an item goes on as soon as it is ready. A step first looks in the store for what it would
make, so a run that was interrupted at any moment is simply carried out again: what is finished is found, what is not is
done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator import pipelines
from codealign.coordinator.ground import windows
from codealign.coordinator.ground.calls import Completions
from codealign.coordinator.ground.faults import RunFailed, RunStopped, leaf
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import Progress
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Item, Settings, Stage, Writing
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.near import NearDuplicates
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.rules.version import VERSION as RULES_VERSION
from codealign.coordinator.runs.bounded import BoundedTasks
from codealign.coordinator.runs.breaker import INTERNAL_ERROR, Breaker, BreakerOpened
from codealign.coordinator.runs.config import ROW_RULES, stage_configs
from codealign.coordinator.runs.context import Context, decision
from codealign.coordinator.runs.execution import Execution
from codealign.coordinator.runs.generation import Drawn, Generation
from codealign.coordinator.runs.groups import Candidate, Group, packed
from codealign.coordinator.runs.prefixes import Prefixes
from codealign.coordinator.runs.publishing import publish
from codealign.coordinator.runs.selection import Selection
from codealign.coordinator.runs.strategies import STRATEGIES
from codealign.coordinator.settings import CoordinatorSettings

SELECTED = "seed.selected"
_DECISIONS_IN_FLIGHT = 1000
"""Decisions on dropped seeds that are on their way to the store, at most."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    rows: int
    version: str
    """Empty: there was no row to publish."""
    message: str
    """For a person."""


async def work(
    run: pb.Record,
    services: Services,
    store: RunStore,
    benchmarks: BenchmarkTexts,
    settings: CoordinatorSettings,
    progress: Progress,
    gate: Callable[[], None],
    say: Callable[[str], None],
) -> Outcome:
    """Carry a run out, from where it is.

    Args:
        run: Its record, with every default filled in.
        services: All that it calls.
        store: Of its collection, under its lease.
        benchmarks: Texts that must not occur in a seed or a row.
        settings: How much is in flight at once.
        progress: Of the pipeline's stages; kept up.
        gate: Raises RunStopped where no new work may start.
        say: Told what the run is doing, for its status.

    Raises:
        RunStopped: The gate said so; everything that was in flight is finished.
        RunFailed: It cannot go on without a person.
        BreakerOpened: It is to be paused; everything that was in flight is finished.
        LeaseLost: Another coordinator has it.
    """
    pipeline = pipelines.get(run.run.pipeline)
    _check_versions(run.run, pipeline, benchmarks)
    breaker = Breaker()

    def stop_where_wanted() -> None:
        gate()
        if breaker.reason:
            raise RunStopped(breaker.reason)

    configs = stage_configs(run.run)
    context = Context(
        run, pipeline, Settings(run.run), configs, store, benchmarks, progress, breaker, stop_where_wanted
    )
    try:
        await store.append_all([run, *configs.all()])
        runner = Runner(context, services, settings)
        say("working on seeds")
        groups = await runner.all_seeds()
        say("selecting rows")
        rows = await runner.select(groups)
        say("publishing")
        version = await publish(context, services.inference, rows)
    except RunStopped as stopped:
        if breaker.reason:
            raise BreakerOpened(breaker.reason) from stopped
        raise
    except BaseExceptionGroup as group:
        raise leaf(group) from None
    return Outcome(rows, version, _message(rows, context))


def _check_versions(run: pb.Run, pipeline: Pipeline, benchmarks: BenchmarkTexts) -> None:
    """What the run's rows rest on is what is here.

    Raises:
        RunFailed: Names what differs: the rows of two versions would be mixed.
    """
    if run.selection.forbidden_texts_sha256 != benchmarks.sha256:
        raise RunFailed("the benchmark files are not those that the run was created with: set the same ones")
    settings = Settings(run)
    here = {f"stage {stage.name!r}": (settings.of(stage.name).version, stage.VERSION) for stage in pipeline.writing}
    here["the rules for seeds and rows"] = run.selection.rules_version, RULES_VERSION
    for what, (created, current) in here.items():
        if created not in (0, current):
            raise RunFailed(
                f"the run was created with version {created} of {what}, and this coordinator has version {current}: "
                "`codealign rejudge` makes a new run of it, which asks for no completion again"
            )


def _message(rows: int, context: Context) -> str:
    if not rows:
        return "no candidate met the rules: there is nothing to publish"
    rejected = sum(tally.reasons[INTERNAL_ERROR] for tally in context.progress.stages.values())
    text = f"{rows} row{'' if rows == 1 else 's'}"
    return f"{text}; {rejected} internal error{'' if rejected == 1 else 's'}" if rejected else text


class Runner:
    """One run at work.

    Args:
        context: The run.
        services: All that it calls.
        settings: How much is in flight at once.
    """

    def __init__(self, context: Context, services: Services, settings: CoordinatorSettings) -> None:
        self._context, self._pipeline = context, context.pipeline
        self._strategy = STRATEGIES[context.run.selection.strategy]
        self._most_seeds = settings.seeds_in_flight
        self._samples = windows.of_inference(services.inference, settings.generations_in_flight)
        self._programs = windows.of_sandbox(services.sandbox, settings.executions_in_flight)
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
        self._candidates = self._generations[self._pipeline.candidates.name]
        self._execution: Execution | None = None
        if (stage := self._pipeline.execution) is not None:
            self._execution = Execution(context, stage, services.sandbox, self._programs)
        self._stopped = 0
        """Items that are not through, since the gate said so."""

    async def all_seeds(self) -> list[Group]:
        """Take every selected seed through the stages; what was drawn, for the selection.

        Raises:
            RunFailed: No seed meets the rules, or a service gave an error that another try cannot mend.
            RunStopped: The run is to stop; everything that was in flight is finished.
        """
        groups: list[Group] = []
        config_id, count = self._context.configs[self._pipeline.seeds.name].id, 0
        async with (
            contextlib.aclosing(self._judged_seeds()) as seeds,
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
            raise RunStopped(f"{self._stopped} items are not through")
        if not count:
            raise RunFailed(
                f"no seed of collection {self._context.run.seeds.collection!r} meets the seed rules; collect from "
                "another folder (`codealign seeds collect PATH`)"
            )
        return groups

    async def select(self, groups: list[Group]) -> int:
        """Choose the rows; their number."""
        selection = Selection(self._context, self._candidates, self.draw_on, self.seeds_in_flight)
        return await selection.choose(groups)

    def seeds_in_flight(self) -> int:
        """Seeds between their first and their last stage at once, now."""
        return windows.items_in_flight(self._most_seeds, self._samples, self._programs)

    async def _append(self, record: pb.Record) -> None:
        await self._context.store.append(record)

    async def _may_go_on(self) -> None:
        self._context.gate()

    async def _is_through(self, work: Awaitable[None]) -> bool:
        """Do one item's work; False where it stopped, which is no error of what is in flight beside it."""
        try:
            await work
        except RunStopped:
            self._stopped += 1
            return False
        return True

    async def _guarded(self, work: Awaitable[None]) -> None:
        """One item's work as a task."""
        try:
            await self._is_through(work)
        except BaseExceptionGroup as group:
            raise leaf(group) from None

    async def _judged_seeds(self) -> AsyncGenerator[tuple[pb.Record, Drop | None]]:
        """Seeds in the order of their ids, each with the rule that drops it; one with an error is passed over."""
        context, stage = self._context, self._pipeline.seeds
        limit, kept, tally = context.run.seeds.limit, 0, context.progress[stage.name]
        tally.expected = limit
        near = NearDuplicates(stage.threshold, context.run.selection.near_duplicates)
        request = dataset.ScanRequest(kind=stage.makes, collection=context.run.seeds.collection)
        async for seed in context.store.scan(request):
            try:
                drop = stage.drop(seed, context.benchmarks) or _near_drop(near, seed.id, stage.text(seed))
            except Exception as error:  # whatever a stage's code raises
                await self._reject(stage, [seed.id], context.configs[stage.name].id, error)
                tally.finish(INTERNAL_ERROR)
                continue
            context.breaker.saw(stage.name, None)
            tally.finish(drop.rule if drop else None)
            kept += drop is None
            yield seed, drop
            if limit and kept >= limit:
                return

    async def _reject(self, stage: Stage, parents: list[str], config_id: str, error: Exception) -> None:
        await self._context.reject(
            error, stage=stage.name, rejected_kind=stage.makes, parents=parents, config_id=config_id
        )

    async def _through(self, seed: pb.Record, groups: list[Group]) -> None:
        """Record that a seed was selected, and take it through the stages."""
        context, stage = self._context, self._pipeline.seeds
        selected = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule=SELECTED, detail="meets every rule")
        record = pb.Record(
            kind=pb.KIND_DECISION,
            parents=[seed.id, context.record.id],
            stage_config_id=context.configs[stage.name].id,
            decision=selected,
        )
        await context.store.join([seed.id])
        await context.store.append(record)
        await self._go_on(Item(seed, seed.id, {stage.name: seed}), stage, groups, fresh=False)

    async def _go_on(self, item: Item, stage: Stage, groups: list[Group], *, fresh: bool) -> None:
        """Everything that follows from an item of a stage, up to the candidates."""
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
        """Take a record that was read on, unless a rule drops it."""
        if await self._meets_rules(stage, drawn.item):
            await self._go_on(drawn.item, stage, groups, fresh=drawn.fresh)

    async def _meets_rules(self, stage: Writing, item: Item) -> bool:
        """No rule of its stage drops an item."""
        context, tally = self._context, self._context.progress[stage.name]
        try:
            drop = stage.drop(item, context.settings, context.benchmarks)
        except Exception as error:  # whatever a stage's code raises
            await self._reject(stage, [item.record.id], context.configs[ROW_RULES].id, error)
            tally.drop_kept(INTERNAL_ERROR)
            return False
        if drop is not None:
            # Under the stage's configuration, so that it counts for the stage. The rules' settings are the run's, which
            # therefore is a parent.
            parents = [item.record.id, context.record.id]
            await self._append(decision(parents, context.configs[stage.name].id, drop))
            tally.drop_kept(drop.rule)
        return drop is None

    async def draw_on(self, group: Group, item: Item, *, fresh: bool = False) -> bool:
        """Draw rounds of candidates until one more is eligible or the attempts are used up; True if one is.

        Raises:
            RunStopped: The run is to stop; what was in flight is finished.
        """
        settings, eligible = self._candidates.settings, len(group.eligible)
        everything = self._strategy.draws_all
        while group.drawn < settings.attempts and (everything or len(group.eligible) == eligible):
            end = settings.attempts if everything else min(group.drawn + settings.round_size, settings.attempts)
            group.eligible += await self._round(item, range(group.drawn, end), fresh=fresh)
            group.drawn = end
        return len(group.eligible) > eligible

    async def _round(self, item: Item, attempts: range, *, fresh: bool) -> list[Candidate]:
        """Draw these attempts and judge each as it comes; the eligible ones in the order of preference."""
        judging: list[asyncio.Task[tuple[bool, Candidate | None]]] = []
        async with asyncio.TaskGroup() as tasks:

            def deliver(drawn: Drawn) -> None:
                judging.append(tasks.create_task(self._judged(drawn)))

            drawn = await self._is_through(self._candidates.draw(item, attempts, fresh=fresh, deliver=deliver))
        judged = [task.result() for task in judging]
        if not drawn or not all(through for through, _ in judged):
            raise RunStopped("the round is not through")
        found = [candidate for _, candidate in judged if candidate is not None]
        return self._strategy.ordered(
            found, self._context.run, lambda each: self._candidates.key(item.key, each.attempt, each.number)
        )

    async def _judged(self, drawn: Drawn) -> tuple[bool, Candidate | None]:
        """Whether the judging is through, and the candidate where it may become a row."""
        found: list[Candidate] = []
        through = await self._is_through(self._judge(drawn, found))
        return through, found[0] if found else None

    async def _judge(self, drawn: Drawn, found: list[Candidate]) -> None:
        """Judge a candidate; add it to those that were found where it may become a row."""
        context, item = self._context, drawn.item
        if not await self._meets_rules(self._pipeline.candidates, item):
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
            await self._reject(stage, [item.record.id], rules, error)
            tally.finish(INTERNAL_ERROR)
            return
        context.breaker.saw(stage.name, None)
        if drop is not None:
            await self._append(decision([item.record.id], rules, drop))
            tally.finish(drop.rule)
            return
        verdict_id = verdict.id if verdict is not None else ""
        found.append(Candidate(drawn.attempt, drawn.number, packed([item.record.id]), packed([verdict_id])))


def _verdict_of(verdict: pb.Record | None) -> sb.Verdict.ValueType | None:
    return verdict.verdict.result.verdict if verdict is not None else None


def _near_drop(near: NearDuplicates, seed_id: str, text: str) -> Drop | None:
    """The rule for near duplicates, for a seed that meets the others; one that is kept is remembered."""
    if found := near.find(text):
        near.drop(found[0], text)
        return Drop("seed.near-duplicate", f"estimated similarity {found[1]:.2f}", found[0])
    near.add(seed_id, text)
    return None
