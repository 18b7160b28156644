"""The draws of a run with a target, in the order that the scheduler decides (decision 019)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Self

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import CodeAlignError
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.runs import order
from codealign.coordinator.runs.bounded import BoundedTasks
from codealign.coordinator.runs.context import Context
from codealign.coordinator.runs.forecast import Standing, forecast
from codealign.coordinator.runs.groups import Group
from codealign.coordinator.runs.harvest import Harvest, Measured
from codealign.coordinator.runs.items import Items
from codealign.coordinator.runs.offers import Offers
from codealign.coordinator.runs.order import LEARN, Open, Order, Round, Stop
from codealign.coordinator.runs.selection import Selection, Turn
from codealign.coordinator.runs.strategies import STRATEGIES

STOP, SUMMARY = "stop", "summary"
"""Keys of the WorkLog records."""
_PROPERTIES = ("difficulty", "category")


@dataclass
class _Running:
    """An action that was started and is not learned yet."""

    action: order.Action
    harvest: Harvest
    drawn: int = 0
    """Attempts at its instruction before it."""
    eligible: int = 0
    """Eligible candidates of its instruction before it."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set if it did not fail. If the gate stopped it, `Items.stopped` says so."""


class Drawing:
    """Draws candidates until the run's target is reached. Use as an async context manager.

    Args:
        context: The run.
        items: Its items.
        dataset: The store, for the number of seeds.
    """

    def __init__(self, context: Context, items: Items, dataset: Dataset) -> None:
        self._context, self._items, self._dataset = context, items, dataset
        run = context.run
        self._target = run.target
        self._strategy = STRATEGIES[run.selection.strategy]
        self._order = Order(_limits(context))
        self._offers = Offers(run.selection, context.pipeline.selection.duplicate_rules)
        self._groups: list[Group] = []
        """Instructions by number."""
        self._running: deque[_Running] = deque()
        self._turns: list[Turn] = []
        """Candidates in the order in which they were offered, which selection has not seen."""
        self._prefixes: dict[str, int] = {}
        """Tokens of the prompt prefixes used so far."""
        self._why = ""
        self._stop_at: int | None = None
        """Number of actions after which an earlier execution ran out of device hours."""
        self._seconds_before = 0.0
        """Seconds at inference of earlier executions."""
        self._available: int | None = None
        """Number of seeds in the collection. None: unknown."""
        self._exit = contextlib.AsyncExitStack()
        self._seeds: AsyncGenerator[pb.Record]

    async def __aenter__(self) -> Self:
        await self._read_logs()
        with contextlib.suppress(CodeAlignError):  # the forecast does without it
            makes = self._context.pipeline.seeds.makes
            self._available = await requests.count(self._dataset, self._context.run.seeds.collection, makes)
        self._seeds = await self._exit.enter_async_context(self._items.selected_seeds())
        self._context.progress.forecast = self.forecast
        return self

    async def __aexit__(self, *error: object) -> None:
        self._context.progress.forecast = None
        await self._exit.__aexit__(*error)  # type: ignore[arg-type]

    async def rows(self, selection: Selection, say: Callable[[str], None]) -> int:
        """Draw and select until the target is reached, and return the number of rows.

        Args:
            selection: Takes the rows.
            say: Receives the run's current activity.

        Raises:
            RunFailed: No seed meets the rules, or a service returned an error that retrying cannot fix.
            RunStopped: The run must stop; all in-flight work is finished.
        """
        while True:
            say("working on seeds")
            await self._draw()
            await self._items.settle_verdicts()
            say("selecting rows")
            turns, self._turns = self._turns, []
            expected = self._order.kept
            rows = await selection.choose_in_order(turns, self._target.rows)
            if rows >= expected or self._why != order.ROWS:
                return rows
            self._order.lose(expected - rows)  # the store refused some, or comparing them failed

    async def summarize(self, selection: Selection) -> pb.TargetSummary:
        """Record what the order of draws did, and return it."""
        saving = self._order.saving()
        instructions, rows = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for counts, groups in ((instructions, self._groups), (rows, selection.chosen)):
            for group in groups:
                counts.update(pair for pair in zip(_PROPERTIES, group.labels, strict=True) if pair[1])
        summary = pb.TargetSummary(
            why=self._why,
            rows=len(selection.chosen),
            tokens=self._order.spent,
            seeds=self._order.seeds,
            left_instructions=saving.instructions,
            left_attempts=saving.attempts,
            left_tokens=saving.tokens,
            left_rows=saving.rows,
            left_tokens_elsewhere=saving.tokens_elsewhere,
            mix=[
                pb.TargetShare(property=name, value=value, instructions=count, rows=rows[name, value])
                for (name, value), count in sorted(instructions.items())
            ],
        )
        record = await self._context.store.append(self._log(SUMMARY, pb.WorkLog(summary=summary)))
        return record.work_log.summary

    def forecast(self) -> api.Forecast:
        """Return what the run is going to reach."""
        seeds, candidates = self._context.progress[self._context.pipeline.seeds.name], self._items.candidates
        left = None
        if self._available is not None:
            judged = seeds.kept + seeds.dropped
            left = max(0, self._available - judged) * seeds.kept / max(1, judged)
            if most := self._context.run.seeds.limit:
                left = min(left, most - seeds.kept)
        rate = self._context.progress[candidates.stage.name].rate()
        return forecast(self._target, self._order, Standing(left, rate, self._device_hours()))

    async def _draw(self) -> None:
        """Carry out the sequence until it ends."""
        async with BoundedTasks(self._items.seeds_in_flight) as tasks:
            while not self._items.stopped:
                decision = await self._decision()
                if isinstance(decision, Stop):
                    self._why = decision.why
                    break
                if decision is LEARN:
                    await self._learn()
                else:
                    await self._start(decision, tasks)
        self._items.check_stopped()
        while self._running:
            await self._learn()
        if self._target.rows and self._order.kept >= self._target.rows:
            self._why = order.ROWS

    async def _decision(self) -> order.Decision:
        decision = self._order.decide()
        if isinstance(decision, Open | Round) and await self._is_out_of_time():
            return Stop(order.HOURS)
        return decision

    async def _start(self, action: order.Action, tasks: BoundedTasks) -> None:
        """Start an action, unless the gate stops it or there is no further seed."""
        running = _Running(action, Harvest(measured=Measured()))
        seed: pb.Record | None = None
        if isinstance(action, Open):
            seed = await anext(self._seeds, None)
            if seed is None:
                self._order.no_more_seeds()
                return
        else:
            group = self._groups[action.instruction]
            running.harvest.groups.append(group)
            running.drawn, running.eligible = group.drawn, len(group.eligible)
        if not await self._items.may_go_on():
            return
        self._order.start(action)
        self._running.append(running)
        await tasks.start(self._carry_out(running, seed))

    async def _carry_out(self, running: _Running, seed: pb.Record | None) -> None:
        if seed is not None:
            await self._items.open(seed, running.harvest)
        else:
            await self._items.next_round(running.harvest.groups[0], running.harvest)
        running.done.set()

    async def _learn(self) -> None:
        """Wait for the action that was started first, and learn its outcome."""
        running = self._running[0]
        await running.done.wait()
        if self._items.stopped:
            return  # it may be incomplete
        self._running.popleft()
        harvest = running.harvest
        assert harvest.measured is not None
        spent = harvest.measured.spent
        groups = sorted(harvest.groups, key=lambda group: group.key)
        kept, attempted = self._order.kept, []
        for group in groups:
            attempted.append(self._offer(group, running, harvest.measured, kept))
            kept += attempted[-1].kept
        tokens = spent.total(self._prefixes)
        self._order.learn(order.Outcome(attempted, tokens, spent.of(self._items.candidates.stage.name)))
        if isinstance(running.action, Open):
            self._groups += groups

    def _offer(self, group: Group, running: _Running, measured: Measured, kept: int) -> order.Attempted:
        """Offer a group's new candidates to de-duplication, up to the first row or, of several, all."""
        passed = len({candidate.attempt for candidate in group.eligible[running.eligible :]})
        offered = rows = 0
        while group.offered < len(group.eligible) and (self._strategy.several or not rows):
            rank = group.offered
            group.offered += 1
            self._turns.append(Turn(group, rank))
            if self._target.rows and kept + rows >= self._target.rows:
                if self._strategy.several:
                    continue
                break  # selection drops it, since the target is reached
            offered += 1
            rows += self._is_kept(measured, group, rank)
        return order.Attempted(group.drawn - running.drawn, passed, offered, rows)

    def _is_kept(self, measured: Measured, group: Group, rank: int) -> bool:
        row = measured.compared.get(group.eligible[rank].record)
        if row is None:
            return False
        try:
            return self._offers.offer(row, group.key) is None
        except Exception:  # whatever reading its code raises: selection offers it again, and records the error
            return False
        finally:
            self._offers.leave(group.key)

    async def _read_logs(self) -> None:
        """Read what earlier executions of the run recorded about device hours."""
        if not self._target.HasField("device_hours"):
            return
        request = ds.ScanRequest(kind=pb.KIND_WORK_LOG, parent_id=self._context.record.id)
        async for record in self._context.store.scan(request):
            self._seconds_before += record.work_log.inference_seconds
        stop_id = records.derive_id(pb.KIND_WORK_LOG, [self._context.record.id], key=STOP)
        if stop := (await self._context.store.join([stop_id])).get(stop_id):
            self._stop_at = stop.work_log.stop.actions

    def _device_hours(self) -> float:
        seconds = self._seconds_before + self._context.progress.inference.busy_seconds
        return seconds / 3600 * max(1, self._target.devices)

    async def _is_out_of_time(self) -> bool:
        """Return whether the device hours are used up, now or where an earlier execution recorded it."""
        if not self._target.HasField("device_hours"):
            return False
        hours = self._device_hours()
        if self._stop_at is None and hours >= self._target.device_hours:
            stop = pb.TargetStop(actions=self._order.started, device_hours=hours)
            record = await self._context.store.append(self._log(STOP, pb.WorkLog(stop=stop)))
            self._stop_at = record.work_log.stop.actions
        return self._stop_at is not None and self._order.started >= self._stop_at

    def _log(self, key: str, log: pb.WorkLog) -> pb.Record:
        return pb.Record(kind=pb.KIND_WORK_LOG, parents=[self._context.record.id], key=key, work_log=log)


def message(summary: pb.TargetSummary, run: pb.Run) -> str:
    """Return why a run with a target ended, for people."""
    rows = run.target.rows
    if summary.why == order.ROWS:
        return "the target is reached"
    short = f" before the target of {rows:,} rows" if rows else ""
    if summary.why == order.TOKENS:
        return f"the budget of {run.target.tokens:,} tokens is used up{short}"
    if summary.why == order.HOURS:
        return f"the budget of {run.target.device_hours:g} device hours is used up{short}"
    limit = "; seeds.limit is set" if run.seeds.limit else ""
    return f"all seeds and all attempts are used up{short}{limit}: collect more seeds or allow more attempts"


def _limits(context: Context) -> order.Limits:
    """Return the limits for the scheduler."""
    target, pipeline = context.run.target, context.pipeline
    stage = context.settings.of(pipeline.candidates.name)
    size = stage.attempts if STRATEGIES[context.run.selection.strategy].draws_all else stage.round_size
    earlier = [context.settings.of(each.name) for each in pipeline.writing if each is not pipeline.candidates]
    return order.Limits(
        rows=target.rows,
        tokens=target.tokens,
        window=target.window,
        attempts=stage.attempts,
        round_size=size,
        seed_tokens=sum(each.attempts * each.max_tokens for each in earlier) + size * stage.max_tokens,
        round_tokens=size * stage.max_tokens,
    )
