"""The pure scheduler of runs with a target: what it decides, when it stops, and that nothing else matters."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from codealign.coordinator.runs.order import (
    EXHAUSTED,
    LEARN,
    ROWS,
    TOKENS,
    Action,
    Attempted,
    Limits,
    Open,
    Order,
    Outcome,
    Round,
    Stop,
)
from codealign.coordinator.runs.passes import Passes, Prior, chance

WRITE, ATTEMPT = 60, 100
"""Tokens for an instruction, and for an attempt at it."""
LIMITS = Limits(rows=0, tokens=0, window=16, attempts=10, round_size=1, seed_tokens=400, round_tokens=200)


@dataclass
class World:
    """What the model would give: every attempt's result is fixed, whenever it is drawn.

    Args:
        seeds: Number of seeds.
        rate: Returns the pass rate of an instruction from a random generator of its own.
        falls: Share of passing candidates that fall to de-duplication.
        fan: Most instructions of a seed; each seed has 0 to this many, or exactly one.
    """

    seeds: int
    rate: Callable[[random.Random], float] = lambda chance: chance.betavariate(0.6, 1.4)
    falls: float = 0.1
    fan: int = 1
    number: int = 0
    rates: list[random.Random] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)

    def open(self, limits: Limits) -> Outcome:
        self.number += 1
        made = 1 if self.fan == 1 else random.Random(f"fan {self.number}").randrange(self.fan + 1)
        numbers = range(len(self.drawn), len(self.drawn) + made)
        self.drawn += [0] * made
        self.rows += [0] * made
        found = [self.attempt(number, limits) for number in numbers]
        tokens = sum(each.drawn for each in found) * ATTEMPT
        return Outcome(found, WRITE + tokens, tokens)

    def round(self, number: int, limits: Limits) -> Outcome:
        found = self.attempt(number, limits)
        return Outcome([found], found.drawn * ATTEMPT, found.drawn * ATTEMPT)

    def attempt(self, number: int, limits: Limits) -> Attempted:
        rate = self.rate(random.Random(f"rate {number}"))
        size = min(limits.round_size, limits.attempts - self.drawn[number])
        passed = offered = kept = 0
        for attempt in range(self.drawn[number], self.drawn[number] + size):
            luck = random.Random(f"{number} {attempt}")
            if luck.random() >= rate:
                continue
            passed += 1
            if not kept:
                offered += 1
                kept = int(luck.random() >= self.falls)
        self.drawn[number] += size
        self.rows[number] += kept
        return Attempted(size, passed, offered, kept)


@dataclass
class Ended:
    order: Order
    why: str
    actions: list[Action]
    world: World
    most_pending: int


def carry_out(world: World, limits: Limits) -> Ended:
    """Carry out the sequence. An action's outcome is computed when it is learned, as if it had taken until then."""
    order, actions, running = Order(limits), list[Action](), deque[Action]()
    most = 0
    while True:
        decision = order.decide()
        if isinstance(decision, Stop):
            break
        if decision is LEARN:
            action = running.popleft()
            if isinstance(action, Open):
                order.learn(world.open(limits))
            else:
                order.learn(world.round(action.instruction, limits))
            continue
        if isinstance(decision, Open) and sum(isinstance(each, Open) for each in actions) == world.seeds:
            order.no_more_seeds()
            continue
        order.start(decision)
        actions.append(decision)
        running.append(decision)
        most = max(most, order.pending)
    return Ended(order, decision.why, actions, world, most)


def test_a_target_in_rows_is_reached_with_about_as_many_candidates() -> None:
    ended = carry_out(World(10_000), replace(LIMITS, rows=300))
    assert ended.why == ROWS
    assert 300 <= ended.order.kept + ended.order.pending < 300 + LIMITS.window


def test_a_target_beyond_the_seeds_draws_every_attempt_and_says_that_the_seeds_are_used_up() -> None:
    ended = carry_out(World(50), replace(LIMITS, rows=300))
    assert ended.why == EXHAUSTED
    assert all(drawn == 10 or rows for drawn, rows in zip(ended.world.drawn, ended.world.rows, strict=True))


def test_no_action_is_started_beyond_the_window() -> None:
    ended = carry_out(World(500), replace(LIMITS, rows=100, window=5))
    assert ended.most_pending == 5


def test_few_rows_open_few_seeds_even_with_a_large_window() -> None:
    ended = carry_out(World(10_000), replace(LIMITS, rows=8, window=512))
    assert ended.order.kept >= 8
    assert ended.world.number < 60


def test_a_token_budget_is_kept_and_nearly_used() -> None:
    ended = carry_out(World(10_000), replace(LIMITS, tokens=100_000))
    assert ended.why == TOKENS
    assert 99_000 < ended.order.spent <= 100_000


def test_a_budget_below_one_seed_starts_nothing() -> None:
    ended = carry_out(World(10), replace(LIMITS, tokens=399))
    assert (ended.why, ended.actions) == (TOKENS, [])


def test_hopeless_instructions_are_left_for_new_seeds() -> None:
    two_kinds = World(10_000, rate=lambda chance: 0.95 if chance.random() < 0.5 else 0.01, falls=0)
    ended = carry_out(two_kinds, replace(LIMITS, rows=500))
    hopeless = [drawn for drawn, rows in zip(two_kinds.drawn, two_kinds.rows, strict=True) if not rows]
    assert sum(hopeless) / len(hopeless) < 2
    assert ended.order.spent < 1.15 * 500 * 2 * (WRITE + ATTEMPT)


def test_where_instructions_are_dear_and_alike_another_attempt_is_better() -> None:
    alike = World(10_000, rate=lambda chance: 0.3, falls=0)
    ended = carry_out(alike, replace(LIMITS, rows=500))
    left = [drawn for drawn, rows in zip(alike.drawn, alike.rows, strict=True) if not rows]
    assert sum(isinstance(each, Round) for each in ended.actions) > 500
    assert sum(drawn >= 4 for drawn in left) > len(left) / 3


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (2.0, 6.0)])
def test_the_order_costs_no_more_than_the_best_fixed_number_of_attempts(alpha: float, beta: float) -> None:
    """With no end of seeds, no number of attempts that is fixed beforehand gives a row for fewer tokens."""

    def rate(chance: random.Random) -> float:
        return chance.betavariate(alpha, beta)

    adaptive = carry_out(World(100_000, rate, falls=0), replace(LIMITS, rows=600)).order
    cost = adaptive.spent / adaptive.kept
    fixed = []
    for attempts in (1, 2, 3, 5, 10):
        rows, tokens = 0, 0
        for number in range(1500):
            tokens += WRITE
            instruction_rate = rate(random.Random(f"rate {number}"))
            for attempt in range(attempts):
                tokens += ATTEMPT
                if random.Random(f"{number} {attempt}").random() < instruction_rate:
                    rows += 1
                    break
        fixed.append(tokens / rows)
    assert cost < 1.06 * min(fixed)
    assert cost < max(fixed)


def test_the_sequence_depends_on_nothing_but_the_outcomes() -> None:
    limits = replace(LIMITS, rows=60)
    first, second = carry_out(World(5000), limits), carry_out(World(5000), limits)
    assert first.actions == second.actions
    peeked = Order(limits)  # asking for forecasts in between changes nothing
    running, world, actions = deque[Action](), World(5000), list[Action]()
    while not isinstance(decision := peeked.decide(), Stop):
        peeked.tokens_per_row(), peeked.within_reach(10), peeked.saving()
        if decision is LEARN:
            action = running.popleft()
            peeked.learn(world.open(limits) if isinstance(action, Open) else world.round(action.instruction, limits))
            continue
        peeked.start(decision)
        running.append(decision)
        actions.append(decision)
    assert actions == first.actions


@pytest.mark.parametrize("number", range(25))
def test_whatever_the_world_every_limit_holds_and_nothing_is_drawn_twice(number: int) -> None:
    luck = random.Random(number)
    limits = Limits(
        rows=luck.choice([0, 1, 5, 60]),
        tokens=luck.choice([0, 500, 20_000]),
        window=luck.choice([1, 2, 7, 64]),
        attempts=luck.choice([1, 3, 10]),
        round_size=luck.choice([1, 2, 3]),
        seed_tokens=1000,
        round_tokens=300,
    )
    alpha, beta = luck.uniform(0.1, 3), luck.uniform(0.1, 3)
    world = World(
        luck.choice([0, 1, 12, 150]),
        lambda chance: chance.betavariate(alpha, beta),
        luck.choice([0, 0.3, 1]),
        luck.choice([1, 3]),
    )
    ended = carry_out(world, limits)
    order = ended.order
    assert ended.most_pending <= limits.window
    assert all(drawn <= limits.attempts for drawn in world.drawn)
    assert all(rows <= 1 for rows in world.rows)
    assert order.kept == sum(world.rows)
    if limits.tokens:
        # A seed may cost more than every one before it.
        assert order.spent <= limits.tokens + limits.window * 3 * limits.attempts * ATTEMPT
    if ended.why == ROWS:
        assert order.kept >= limits.rows > 0
    elif ended.why == EXHAUSTED:
        assert world.number == world.seeds
        assert all(drawn == limits.attempts or rows for drawn, rows in zip(world.drawn, world.rows, strict=True))
    else:
        assert ended.why == TOKENS
        assert limits.tokens


def test_the_saving_is_what_drawing_out_the_instructions_left_would_have_cost() -> None:
    world = World(10_000, rate=lambda chance: chance.betavariate(0.3, 0.7), falls=0)
    ended = carry_out(world, replace(LIMITS, rows=400))
    saving = ended.order.saving()
    left = [number for number, rows in enumerate(world.rows) if not rows]
    assert saving.instructions == len(left)
    assert saving.attempts == sum(10 - world.drawn[number] for number in left)
    drawn = sum(world.drawn)
    for number in left:
        while not world.rows[number] and world.drawn[number] < 10:
            world.attempt(number, LIMITS)
    assert saving.rows == pytest.approx(sum(world.rows[number] for number in left), rel=0.3)
    assert saving.tokens == pytest.approx((sum(world.drawn) - drawn) * ATTEMPT, rel=0.15)
    assert saving.tokens_elsewhere < saving.tokens


def test_the_rows_within_reach_are_those_that_a_run_without_a_target_gets() -> None:
    whole = carry_out(World(400), LIMITS)
    part = carry_out(World(400), replace(LIMITS, rows=60)).order
    assert part.within_reach(400 - part.seeds) == pytest.approx(whole.order.kept, rel=0.25)


@pytest.mark.parametrize(("prior", "stops"), [(Prior(0.5, 1.5), True), (Prior(3, 9), True), (Prior(0.5, 1.5), False)])
def test_the_prior_is_found_whether_or_not_drawing_stops_at_a_pass(prior: Prior, stops: bool) -> None:
    passes, luck = Passes(), random.Random(5)
    for _ in range(1500):
        rate, drawn, passed = luck.betavariate(*prior), 0, 0
        for _ in range(8):
            found = int(luck.random() < rate)
            passes.add(drawn, passed, 1, found)
            drawn, passed = drawn + 1, passed + found
            if found and stops:
                break
    alpha, beta = passes.prior
    assert alpha / (alpha + beta) == pytest.approx(prior.alpha / sum(prior), rel=0.12)
    assert alpha + beta == pytest.approx(sum(prior), rel=0.6)


def test_the_chance_of_a_pass_falls_with_every_failure_and_rises_with_more_attempts() -> None:
    prior = Prior(1, 2)
    assert chance(prior, 0, 0, 1) == pytest.approx(1 / 3)
    assert chance(prior, 0, 0, 2) == pytest.approx(1 - 2 / 3 * 3 / 4)
    failed = [chance(prior, drawn, 0, 1) for drawn in range(10)]
    assert failed == sorted(failed, reverse=True)
    assert chance(prior, 3, 2, 1) > chance(prior, 3, 0, 1)
