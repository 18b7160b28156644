"""Decides which worker gets which sample. No input or output, and no clock: every method is told the time.

Invariant: an unanswered sample of a job that is not over either waits or is owed by exactly one call. An answer counts
only if its call still owes the sample. So a sample is answered at most once, whatever lost workers send later.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable

from codealign.common.errors import CodeAlignError, ResourceExhausted, Unavailable
from codealign.common.estimates import ServiceTimes, retry_delay
from codealign.inference.gateway.lanes import Lane, Lanes
from codealign.inference.gateway.waiting import Waiting
from codealign.inference.gateway.work import (
    RETRY_SECONDS,
    Call,
    Draw,
    Ending,
    Fault,
    Job,
    ModelKey,
    Refused,
    Returned,
)


class _Model:
    """Everything about one model: what waits for it, and its workers."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.lanes = Lanes()
        self.stuck_since: float | None = None
        """Since when samples wait and no worker may get them."""


class Dispatcher:
    """Queues samples and gives them to workers.

    Args:
        limit: Maximum number of waiting samples over all models; beyond it the caller with the most gives way.
        attempts: Maximum number of workers that may fail a sample.
        patience: Seconds for which samples wait while no worker serves their model.
        silence: Seconds without an answer after which a worker that owes samples counts as lost.

    Attributes:
        resent: Number of samples sent again, by reason: "lost", "fault" or "returned".
        spilled: Number of samples sent to another worker than their prefix group's own, because that had no room.
    """

    def __init__(self, limit: int, attempts: int, patience: float, silence: float) -> None:
        self.resent: collections.Counter[str] = collections.Counter()
        self.spilled = 0
        self._limit = limit
        self._attempts = attempts
        self._patience = patience
        self._silence = silence
        self._models: dict[ModelKey, _Model] = {}
        # Calls in progress by worker, in the order in which they began.
        self._calls: dict[str, dict[Call, None]] = {}
        self._times = ServiceTimes()

    # Workers

    def open_lane(self, worker: str, key: ModelKey, slots: int, base: str = "") -> None:
        """Let a worker get samples of a model, at most `slots` at once and a few more.

        Args:
            worker: The worker.
            key: The model.
            slots: Samples that it decodes at once.
            base: The model in whose slots it decodes them, if it serves this one as an adapter.
        """
        model = self._model(key)
        model.lanes.open(worker, slots, base or key.name)
        model.stuck_since = None

    def close_lane(self, worker: str, key: ModelKey) -> None:
        """Give a worker no more samples of a model. What it has, it may answer."""
        if key in self._models:
            self._models[key].lanes.close(worker)
            self._tidy(key)

    def close_lanes(self, worker: str) -> None:
        """Give a worker no more samples of any model."""
        for key in list(self._models):
            self.close_lane(worker, key)

    def lanes_of(self, worker: str) -> set[ModelKey]:
        """Return the models of which a worker may get samples."""
        found = ((key, model.lanes.get(worker)) for key, model in self._models.items())
        return {key for key, lane in found if lane is not None and lane.is_open}

    def lose(self, worker: str, reason: str, now: float) -> list[Call]:
        """Send what a worker owes to others.

        Returns:
            Calls that are over and must be cancelled: its own, and those of jobs that have failed therefore.
        """
        self.close_lanes(worker)
        over = list(self._calls.get(worker, ()))
        for call in list(over):
            over += self._end(call, Fault(reason), now, "lost")
        return over

    # Jobs

    def submit(self, job: Job, attempts: Iterable[int], now: float) -> list[Job]:
        """Queue a job's samples.

        Returns:
            Jobs that failed because they had to make room.

        Raises:
            ResourceExhausted: The queue is full and the caller has the most samples in it.
        """
        job.add(attempts, now)
        waiting = self._model(job.key).waiting
        # All are chosen before any is dropped: a job that is refused nevertheless must not cost others their place.
        dropped: dict[Job, None] = {}
        left = self.waiting
        while left and left + len(job.draws) > self._limit:
            victim = waiting.push_out(job.caller, len(job.draws), dropped)
            if victim is None:
                job.is_over = True
                error = self._full(job.key)
                self._tidy(job.key)
                raise error
            dropped[victim] = None
            left -= len(victim.draws)
        if dropped:
            full = self._full(job.key)
            for victim in dropped:
                self.fail(victim, full)
        waiting = self._model(job.key).waiting  # a new one if the last of the old one's samples were dropped
        for draw in job.draws.values():
            waiting.put(draw)
        return list(dropped)

    def withdraw(self, job: Job) -> list[Call]:
        """Forget a job.

        Returns:
            Its calls in progress, which must be cancelled.
        """
        job.is_over = True
        calls = list(job.calls)
        for call in calls:
            self._close(call)
        model = self._models.get(job.key)
        if model is not None:
            for draw in job.draws.values():
                model.waiting.remove(draw)
            self._tidy(job.key)
        job.draws.clear()
        return calls

    def fail(self, job: Job, error: CodeAlignError) -> list[Call]:
        """End a job with an error, unless it is over. Returns its calls in progress, which must be cancelled."""
        if job.is_over:
            return []
        calls = self.withdraw(job)
        job.fail(error)
        return calls

    def drop_model(self, name: str, error: CodeAlignError) -> list[Call]:
        """End all jobs of a model with an error. Returns their calls in progress, which must be cancelled."""
        over: list[Call] = []
        for key in [key for key in self._models if key.name == name]:
            there = [call.job for calls in self._calls.values() for call in calls if call.job.key == key]
            for job in [*self._models[key].waiting.jobs(), *there]:
                over += self.fail(job, error)
        return over

    # Calls

    def start(self, now: float) -> list[Call]:
        """Return the calls to make now, until no waiting sample has a worker with room."""
        started: list[Call] = []
        for model in self._models.values():
            if not model.waiting:
                model.stuck_since = None
                continue
            if not model.lanes.is_open:
                model.stuck_since = now if model.stuck_since is None else model.stuck_since
                continue
            started += self._start(model, now)
        return started

    def answered(self, call: Call, attempt: int, now: float) -> bool:
        """Record a worker's answer to a sample. Returns whether it counts: the call still owed it."""
        draw = call.owed.pop(attempt, None)
        if draw is None:
            return False
        lane = self._lane(call)
        lane.in_flight -= 1
        lane.progress = now
        self._times.add(now - call.sent)
        del call.job.draws[attempt]
        if not call.job.draws:
            call.job.is_over = True
        self._models[call.job.key].lanes.tidy(call.worker)
        self._tidy(call.job.key)
        return True

    def ended(self, call: Call, ending: Ending, now: float) -> list[Call]:
        """Record the end of a call. Samples that it still owes wait again, or their job fails.

        After a fault the worker gets no more samples until its lanes are opened again.

        Returns:
            Calls of a failed job, which must be cancelled.
        """
        return self._end(call, ending, now, "fault")

    def tick(self, now: float, why: Callable[[ModelKey], str]) -> tuple[dict[str, str], list[Call]]:
        """Look for workers that are silent and for samples that nobody can answer.

        Args:
            now: The time.
            why: Returns why no worker serves a model.

        Returns:
            Silent workers with the reason, which `lose` should be called for, and calls that must be cancelled.
        """
        silent: dict[str, str] = {}
        over: list[Call] = []
        for key, model in list(self._models.items()):
            for lane in model.lanes.all:
                if lane.in_flight and now - lane.progress > self._silence:
                    silent[lane.worker] = (
                        f"it owes {lane.in_flight} samples of {key.name} and has answered none for "
                        f"{now - lane.progress:.0f} s"
                    )
            if model.stuck_since is not None and now - model.stuck_since > self._patience:
                error = Unavailable(f"no worker serves {key.name}: {why(key)}", retry_after=RETRY_SECONDS)
                for job in model.waiting.jobs():
                    over += self.fail(job, error)
        return silent, over

    # Numbers

    @property
    def waiting(self) -> int:
        """Number of waiting samples."""
        return sum(len(model.waiting) for model in self._models.values())

    @property
    def in_flight(self) -> int:
        """Number of samples at workers."""
        return sum(lane.in_flight for model in self._models.values() for lane in model.lanes.all)

    @property
    def slots(self) -> int:
        """Samples that the workers can decode at once. An adapter's are those of its base."""
        engines: dict[tuple[str, str], int] = {}
        for model in self._models.values():
            for lane in model.lanes.all:
                if lane.is_open:
                    engine = lane.worker, lane.engine
                    engines[engine] = max(lane.slots, engines.get(engine, 0))
        return sum(engines.values())

    def in_flight_at(self, worker: str, name: str = "") -> int:
        """Return the number of samples at a worker, of one model or of all."""
        lanes = ((key, model.lanes.get(worker)) for key, model in self._models.items())
        return sum(lane.in_flight for key, lane in lanes if lane is not None and name in ("", key.name))

    def queues(self) -> dict[str, tuple[int, float | None]]:
        """Return the number of waiting samples of each model by name, and since when the oldest has waited."""
        found: dict[str, tuple[int, float | None]] = {}
        for key, model in self._models.items():
            count, since = found.get(key.name, (0, None))
            oldest = [at for at in (since, model.waiting.oldest()) if at is not None]
            found[key.name] = (count + len(model.waiting), min(oldest, default=None))
        return found

    # Inside

    def _start(self, model: _Model, now: float) -> list[Call]:
        chosen: dict[tuple[Job, str], list[Draw]] = {}

        def give(draw: Draw, lane: Lane, spills: bool) -> None:
            if not lane.in_flight:
                lane.progress = now
            lane.in_flight += 1
            self.spilled += spills
            chosen.setdefault((draw.job, lane.worker), []).append(draw)

        for draw in model.waiting.returned:
            lane, spills = model.lanes.choose(draw.job.prefix_key, now, draw.failed_at)
            if lane is not None:
                model.waiting.remove(draw)
                give(draw, lane, spills)
        while model.waiting.has_new and model.lanes.has_room(now):
            draw = model.waiting.pick(lambda prefix: model.lanes.prefers(prefix, now))
            lane, spills = model.lanes.choose(draw.job.prefix_key, now)
            assert lane is not None, "some worker has room"
            give(draw, lane, spills)
        return [self._call(job, worker, draws, now) for (job, worker), draws in chosen.items()]

    def _call(self, job: Job, worker: str, draws: list[Draw], now: float) -> Call:
        call = Call(job, worker, now, {draw.attempt: draw for draw in draws})
        job.calls[call] = None
        self._calls.setdefault(worker, {})[call] = None
        return call

    def _end(self, call: Call, ending: Ending, now: float, why: str) -> list[Call]:
        if call not in self._calls.get(call.worker, ()):
            return []  # It was over before: its worker was given up, or its job has ended.
        job, owed = call.job, list(call.owed.values())
        self._close(call)
        if isinstance(ending, Refused):
            return self.fail(job, ending.error)
        if ending is None and owed:
            ending = Fault(f"its stream ended without {len(owed)} of the samples")
        lane = self._models[job.key].lanes.get(call.worker) if job.key in self._models else None
        if isinstance(ending, Fault):
            self.close_lanes(call.worker)
        elif isinstance(ending, Returned) and lane is not None:
            if ending.seconds:
                lane.held_until = max(lane.held_until, now + ending.seconds)
            else:
                self.close_lane(call.worker, job.key)
        if job.is_over:
            return []
        for draw in owed:
            if isinstance(ending, Fault):
                draw.failed(call.worker, ending.reason)
                if len(draw.faults) >= self._attempts:
                    return self.fail(job, Unavailable(draw.evidence(), retry_after=RETRY_SECONDS))
            self.resent[why if isinstance(ending, Fault) else "returned"] += 1
            self._model(job.key).waiting.put_back(draw)
        return []

    def _close(self, call: Call) -> None:
        """Make a call owe nothing any more."""
        calls = self._calls[call.worker]
        del calls[call]
        if not calls:
            del self._calls[call.worker]
        call.job.calls.pop(call, None)
        if call.owed:
            self._lane(call).in_flight -= len(call.owed)
            call.owed.clear()
        if call.job.key in self._models:
            self._models[call.job.key].lanes.tidy(call.worker)

    def _lane(self, call: Call) -> Lane:
        lane = self._models[call.job.key].lanes.get(call.worker)
        assert lane is not None, "a lane stays while it has samples"
        return lane

    def _model(self, key: ModelKey) -> _Model:
        model = self._models.get(key)
        if model is None:
            model = self._models[key] = _Model()
        return model

    def _tidy(self, key: ModelKey) -> None:
        """Forget a model without workers and without samples."""
        model = self._models.get(key)
        if model is not None and not model.waiting and not model.lanes.all:
            del self._models[key]

    def _full(self, key: ModelKey) -> ResourceExhausted:
        waiting = self.waiting
        return ResourceExhausted(
            f"{waiting} samples are waiting and the limit is {self._limit}: send fewer at once, or raise "
            "CODEALIGN_INFERENCE_MAX_WAITING",
            retry_after=retry_delay(self._times.wait(waiting, self._model(key).lanes.slots)),
        )
