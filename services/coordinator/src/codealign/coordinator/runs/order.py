"""Order of the draws of a run with a target: a pure scheduler (decision 019).

A run with a target is a sequence of actions: take the next seed through all stages to its first attempts, or draw
another round at an open instruction. Actions run concurrently, but what they gave is learned in the order in which they
were started, and at most a window of them is not learned yet. Every decision depends on what was learned and on what
was started, never on what happens to have finished, so the same settings give the same sequence.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from codealign.coordinator.runs.passes import Passes, chance

_FIRST_ROWS = 0.5
"""Rows expected of a seed before any was learned."""
_CAUTIOUS = 8
"""Learned seeds that this counts as where the question is whether to open more: a few failures at the start should not
open many."""


@dataclass(frozen=True)
class Limits:
    """What ends a run, and what its draws look like."""

    rows: int
    """Rows wanted. 0: as many as the other limits allow."""
    tokens: int
    """Most tokens. 0: no limit."""
    window: int
    """Most actions whose outcome is not learned yet."""
    attempts: int
    """Most attempts at an instruction."""
    round_size: int
    """Attempts of one round."""
    seed_tokens: int = 0
    """Most tokens that a seed with one instruction generates up to its first attempts."""
    round_tokens: int = 0
    """Most tokens that a round generates."""


@dataclass(frozen=True)
class Open:
    """Take the next seed through all stages, up to the first attempts at its instructions."""


@dataclass(frozen=True)
class Round:
    """Draw another round at an instruction."""

    instruction: int
    """Its number, in the order in which instructions were learned."""


class Learn(enum.Enum):
    """Learn the outcome of the action that was started first."""

    LEARN = "learn"


LEARN = Learn.LEARN


@dataclass(frozen=True)
class Stop:
    """Start nothing more."""

    why: str
    """One of the reasons below."""


ROWS = "rows"
"""The target is reached."""
TOKENS = "tokens"
"""The budget allows no further action."""
HOURS = "device hours"
"""The measured time has reached the budget."""
EXHAUSTED = "seeds"
"""No seed and no attempt is left."""
Action = Open | Round
Decision = Open | Round | Learn | Stop


@dataclass(frozen=True)
class Attempted:
    """What an action gave for one instruction."""

    drawn: int
    """Attempts drawn in this action."""
    passed: int
    """Attempts of these with a candidate that may become a row."""
    offered: int
    """Candidates offered to de-duplication."""
    kept: int
    """Candidates of these that became rows."""


@dataclass(frozen=True)
class Outcome:
    """What an action gave."""

    instructions: Sequence[Attempted]
    """Of a seed: all its instructions, in the order of their keys. Of a round: the one instruction."""
    tokens: int
    attempt_tokens: int
    """Tokens of these for attempts at instructions."""


@dataclass
class _Instruction:
    drawn: int = 0
    passed: int = 0
    rows: int = 0

    @property
    def state(self) -> tuple[int, int]:
        """Attempts, and passes that fell to de-duplication."""
        return self.drawn, self.passed


@dataclass
class _Measured:
    """What the actions of one kind cost."""

    count: int = 0
    tokens: int = 0
    largest: int = 0

    def add(self, tokens: int) -> None:
        self.count += 1
        self.tokens += tokens
        self.largest = max(self.largest, tokens)


@dataclass(frozen=True)
class Saving:
    """What leaving instructions for new seeds saved, by the posterior pass rates."""

    instructions: int
    """Instructions left without a row although attempts were left."""
    attempts: int
    """Attempts left."""
    tokens: int
    """Tokens that drawing them all out would have cost."""
    rows: float
    """Rows that this would have given."""
    tokens_elsewhere: int
    """Tokens that as many rows cost through new seeds."""


@dataclass
class Order:
    """The state of the sequence.

    Decide, then do as decided: `start` an action, `learn` the outcome of the one that was started first, or end.
    """

    limits: Limits
    kept: int = 0
    """Rows so far."""
    spent: int = 0
    """Tokens so far."""
    seeds: int = 0
    """Seeds learned."""
    started: int = 0
    """Actions started."""
    _seeds_left: bool = True
    _pending: deque[tuple[Action, float]] = field(default_factory=deque)
    """Actions not learned yet, with the rows expected of each when it was started; a seed's is -1."""
    _instructions: list[_Instruction] = field(default_factory=list)
    _open: dict[tuple[int, int], deque[int]] = field(default_factory=dict)
    """Instructions at which more may be drawn, by their state, in the order in which they came into it."""
    _passes: Passes = field(default_factory=Passes)
    _opened: _Measured = field(default_factory=_Measured)
    _rounds: _Measured = field(default_factory=_Measured)
    _first_rows: int = 0
    """Rows of first attempts."""
    _attempts: int = 0
    _attempt_tokens: int = 0
    _offers: Counter[bool] = field(default_factory=Counter)
    """Candidates offered to de-duplication, by whether an earlier one of the instruction had fallen."""
    _survived: Counter[bool] = field(default_factory=Counter)
    _value: float | None = None
    """`seed_value` of what was learned so far, once it was asked for."""

    @property
    def pending(self) -> int:
        """Actions that are not learned yet."""
        return len(self._pending)

    def no_more_seeds(self) -> None:
        """Note that every seed was opened."""
        self._seeds_left = False

    def lose(self, rows: int) -> None:
        """Take back rows that the store refused."""
        self.kept -= rows

    def decide(self) -> Decision:
        """Return what to do next."""
        limits = self.limits
        if limits.rows and self.kept >= limits.rows:
            return Stop(ROWS)
        if self._pending and (
            len(self._pending) >= limits.window or (limits.rows and self.kept + self._expected() >= limits.rows)
        ):
            return LEARN
        wanted = False
        for action in self._preferred():
            wanted = True
            if self._affords(action):
                return action
        if self._pending:
            return LEARN
        return Stop(TOKENS if wanted else EXHAUSTED)

    def start(self, action: Action) -> None:
        """Note that an action was started."""
        rows = -1.0
        if isinstance(action, Round):
            waiting = self._open[self._instructions[action.instruction].state]
            assert waiting[0] == action.instruction
            rows = self._chance(self._instructions[action.instruction].state)
            waiting.popleft()
        self._pending.append((action, rows))
        self.started += 1

    def learn(self, outcome: Outcome) -> list[int]:
        """Learn the outcome of the action that was started first, and return the numbers of its instructions."""
        action, _ = self._pending.popleft()
        self.spent += outcome.tokens
        self._attempt_tokens += outcome.attempt_tokens
        if isinstance(action, Open):
            numbers = [*range(len(self._instructions), len(self._instructions) + len(outcome.instructions))]
            self._instructions += [_Instruction() for _ in numbers]
            self.seeds += 1
            self._opened.add(outcome.tokens)
            self._first_rows += sum(each.kept for each in outcome.instructions)
        else:
            numbers = [action.instruction]
            self._rounds.add(outcome.tokens)
        for number, attempted in zip(numbers, outcome.instructions, strict=True):
            self._attempted(number, attempted)
        self._value = None
        return numbers

    def _attempted(self, number: int, attempted: Attempted) -> None:
        instruction = self._instructions[number]
        fell = instruction.passed > 0
        self._passes.add(instruction.drawn, instruction.passed, attempted.drawn, attempted.passed)
        self._attempts += attempted.drawn
        instruction.drawn += attempted.drawn
        instruction.passed += attempted.passed
        instruction.rows += attempted.kept
        self.kept += attempted.kept
        first = min(attempted.offered, 0 if fell else 1)
        self._offers[False] += first
        self._offers[True] += attempted.offered - first
        self._survived[fell or attempted.offered > 1] += attempted.kept
        if not instruction.rows and instruction.drawn < self.limits.attempts:
            self._open.setdefault(instruction.state, deque()).append(number)

    def _preferred(self) -> Iterator[Action]:
        """Yield the possible actions, the best one first."""
        best = self._best_round()
        if best is not None and (not self._seeds_left or best[1] >= self.seed_value()):
            yield Round(best[0])
        if self._seeds_left:
            yield Open()
            if best is not None:
                yield Round(best[0])

    def _best_round(self) -> tuple[int, float] | None:
        """Return the instruction with most rows per token in another round, and these."""
        found = [(self._round_value(state), waiting[0]) for state, waiting in self._open.items() if waiting]
        if not found:
            return None
        value, number = max(found, key=lambda each: (each[0], -each[1]))
        return number, value

    def _affords(self, action: Action) -> bool:
        """Return whether the budget allows an action, with what is reserved for those that are not learned yet."""
        if not self.limits.tokens:
            return True
        reserved = sum(self._reserve(each) for each, _ in self._pending) + self._reserve(action)
        return self.spent + reserved <= self.limits.tokens

    def _reserve(self, action: Action) -> int:
        """Return the most that an action of this kind may generate or has cost, prompts included."""
        if isinstance(action, Open):
            return max(self.limits.seed_tokens, self._opened.largest)
        return max(self.limits.round_tokens, self._rounds.largest)

    def _expected(self) -> float:
        """Return the rows expected of the actions that are not learned yet."""
        each = self._rows_per_seed(_CAUTIOUS)
        return sum(each if rows < 0 else rows for _, rows in self._pending)

    def _rows_per_seed(self, weight: int = 1) -> float:
        return (self._first_rows + _FIRST_ROWS * weight) / (self.seeds + weight)

    def _survival(self, *, fell: bool) -> float:
        """Return the share of candidates that survive de-duplication, by whether the instruction lost one before."""
        return (self._survived[fell] + 1) / (self._offers[fell] + (2 if fell else 1))

    def _round(self, drawn: int) -> int:
        """Return the attempts of the next round after this many."""
        return min(self.limits.round_size, self.limits.attempts - drawn)

    def _chance(self, state: tuple[int, int]) -> float:
        """Return the probability of a row from the next round at an instruction in this state."""
        drawn, passed = state
        return chance(self._passes.prior, drawn, passed, self._round(drawn)) * self._survival(fell=passed > 0)

    def _round_value(self, state: tuple[int, int]) -> float:
        return self._chance(state) / (self._round(state[0]) * self._tokens_per_attempt())

    def _tokens_per_attempt(self) -> float:
        return max(1.0, self._attempt_tokens / max(1, self._attempts))

    def seed_value(self) -> float:
        """Return the rows per token of new seeds, with as many further rounds at their instructions as pay.

        With no end of seeds this is the best rate that any stop rule reaches; a round below it is worse than a seed.
        """
        if self._value is None:
            self._value = max((rows / tokens for rows, tokens in self._depths()), default=0.0)
        return self._value

    def _depths(self) -> Iterator[tuple[float, float]]:
        """Yield rows and tokens of a seed by the number of rounds after which its instructions are left."""
        if not self.seeds:
            return
        rows, tokens = self._rows_per_seed(), max(1.0, self._opened.tokens / self.seeds)
        yield rows, tokens
        each, drawn = self._passes.instructions / self.seeds, self._round(0)
        while each and drawn < self.limits.attempts:
            size = self._round(drawn)
            failed = 1 - chance(self._passes.prior, 0, 0, drawn)
            rows += each * failed * self._chance((drawn, 0))
            tokens += each * failed * size * self._tokens_per_attempt()
            drawn += size
            yield rows, tokens

    def tokens_per_row(self) -> float | None:
        """Return the tokens that further rows cost at the present rates, or None if nothing is known yet."""
        value = self.seed_value()
        return 1 / value if self.seeds and value > 0 else None

    def tokens_per_attempt_in_all(self) -> float:
        """Return all tokens so far per attempt at an instruction."""
        return self.spent / max(1, self._attempts)

    def within_reach(self, seeds_left: float) -> float:
        """Return the rows that this many further seeds and all attempts left would give altogether."""
        per_seed = max((rows for rows, _ in self._depths()), default=_FIRST_ROWS)
        drawable = sum(
            len(waiting) * chance(self._passes.prior, *state, self.limits.attempts - state[0])
            for state, waiting in self._open.items()
        )
        return self.kept + self._expected() + drawable * self._survival(fell=False) + max(0.0, seeds_left) * per_seed

    def saving(self) -> Saving:
        """Return what leaving instructions saved."""
        prior, count, attempts, tokens, rows = self._passes.prior, 0, 0, 0.0, 0.0
        for (drawn, passed), waiting in self._open.items():
            if passed:
                continue
            left = self.limits.attempts - drawn
            count += len(waiting)
            attempts += len(waiting) * left
            for done in range(0, left, self.limits.round_size):
                size = min(self.limits.round_size, left - done)
                tokens += len(waiting) * (1 - chance(prior, drawn, 0, done)) * size * self._tokens_per_attempt()
            rows += len(waiting) * chance(prior, drawn, 0, left) * self._survival(fell=False)
        elsewhere = rows * (self.tokens_per_row() or 0.0)
        return Saving(count, attempts, round(tokens), rows, round(elsewhere))
