"""What selection strategies choose from the same attempts, and how much of it is right: pure functions.

A strategy is an `Order`: it returns an instruction's attempts in order of preference. `ORDERS` has those of a run. To
measure another one, add it there by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.evaluation.statistics import mcnemar, wilson
from codealign.coordinator.rules.duplicates import Row
from codealign.coordinator.runs.groups import Candidate, packed
from codealign.coordinator.runs.offers import Offers
from codealign.coordinator.runs.strategies import STRATEGIES, Strategy
from codealign.nano.judgement import Outcome


@dataclass(frozen=True)
class Attempt:
    """A response that could be read."""

    record_id: str
    number: int
    """Number of the draw."""
    position: int
    """Position among the responses that were read from one completion."""
    key: str
    """Key that everything random about it derives from."""
    task: str
    """Text of the task that it answers."""
    code: str
    tests: str
    verdict: sb.Verdict.ValueType | None
    """None: it was not executed."""
    is_dropped: bool
    """Whether a rule for rows drops it."""
    row: Row
    """What de-duplication compares."""


@dataclass(frozen=True)
class Task:
    """What was answered, normally an instruction, with its attempts."""

    record_id: str
    key: str
    line: Sequence[str]
    """Ids of the records that it derives from, and its own."""
    attempts: Sequence[Attempt]


Order = Callable[[Task, pb.Run], Sequence[Attempt]]
"""Returns the attempts that may become a task's row, in order of preference."""


def by_strategy(strategy: Strategy, task: Task, run: pb.Run) -> list[Attempt]:
    """Return the attempts that a strategy takes as the runner orders them once all attempts are drawn."""
    eligible = {
        Candidate(each.number, each.position, packed([each.record_id]), b""): each
        for each in task.attempts
        if each.verdict is not None and strategy.takes(each.verdict) and not each.is_dropped
    }
    ordered = strategy.ordered(list(eligible), run, lambda candidate: eligible[candidate].key)
    return [eligible[candidate] for candidate in ordered]


ORDERS: dict[str, Order] = {name: functools.partial(by_strategy, each) for name, each in STRATEGIES.items()}
"""The measured strategies by name."""


@dataclass(frozen=True)
class Choice:
    """A row that a strategy chose."""

    task: Task
    attempt: Attempt


def choose(name: str, tasks: Sequence[Task], run: pb.Run, rules: Sequence[str]) -> list[Choice]:
    """Return a strategy's rows, after de-duplication as in a run: the next attempt takes the place of a duplicate.

    Args:
        name: Name in `ORDERS`.
        tasks: All tasks of the run.
        run: The run, for its settings.
        rules: Rules for duplicates that the pipeline applies.
    """
    settings = pb.SelectionSettings()
    settings.CopyFrom(run.selection)
    several = name in STRATEGIES and STRATEGIES[name].several
    settings.strategy = name if several else next(iter(STRATEGIES))
    offers, chosen = Offers(settings, rules), []
    ordered = [(task, ORDERS[name](task, run)) for task in sorted(tasks, key=lambda task: (task.key, *task.line))]
    turns = [(task, order, rank) for task, order in ordered for rank in range(len(order) if several else 1)]
    while turns:
        fallen = []
        for task, order, rank in turns:
            if rank >= len(order):
                continue
            if offers.offer(order[rank].row, task.key) is None:
                chosen.append(Choice(task, order[rank]))
            else:
                fallen.append((task, order, rank + 1))
            offers.leave(task.key)
        turns = [] if several else fallen
    return chosen


@dataclass(frozen=True)
class Measured:
    """How much of what a strategy chose is right."""

    name: str
    rows: int
    right: int
    wrong: int
    """By truth. The other rows' tasks have no known meaning."""
    agreeing: int
    differing: int
    """Rows whose tests and code agree, or differ, on other arguments. The other rows' tests cannot be varied."""
    found: int
    """Tasks with a right attempt for which a right one was chosen."""
    findable: int
    """Tasks with a right attempt."""

    def line(self) -> str:
        """Return a line of the table."""
        known, varied = self.right + self.wrong, self.agreeing + self.differing
        shares = ((self.wrong, known), (self.differing, varied), (self.right, known), (self.found, self.findable))
        return f"| {self.name} | {self.rows:,} | {' | '.join(share(*each) for each in shares)} |"


def measure(
    name: str,
    chosen: Sequence[Choice],
    tasks: Sequence[Task],
    truth: Mapping[str, Outcome],
    varied: Mapping[str, Outcome],
) -> Measured:
    """Count what a strategy chose.

    Args:
        name: The strategy.
        chosen: Its rows.
        tasks: All tasks.
        truth: Whether each attempt is right, by its record's id.
        varied: Whether each attempt's tests and code agree on other arguments.
    """

    def count(judged: Mapping[str, Outcome], outcome: Outcome) -> int:
        return sum(judged[each.attempt.record_id] is outcome for each in chosen)

    findable = {
        task.record_id for task in tasks if any(truth[each.record_id] is Outcome.RIGHT for each in task.attempts)
    }
    found = {each.task.record_id for each in chosen if truth[each.attempt.record_id] is Outcome.RIGHT}
    return Measured(
        name,
        len(chosen),
        count(truth, Outcome.RIGHT),
        count(truth, Outcome.WRONG),
        count(varied, Outcome.RIGHT),
        count(varied, Outcome.WRONG),
        len(found),
        len(findable),
    )


@dataclass(frozen=True)
class Compared:
    """Two strategies, task by task."""

    name: str
    than: str
    right: tuple[int, int]
    """Tasks for which only the first, and only the second, chose a right attempt."""
    wrong: tuple[int, int]
    """Likewise for wrong attempts."""

    def line(self) -> str:
        """Return a line of the table, with p-values of the exact McNemar test."""
        parts = (f"{only} : {other} | {mcnemar(only, other):.2g}" for only, other in (self.right, self.wrong))
        return f"| {self.name} | {self.than} | {' | '.join(parts)} |"


def compare(
    name: str, chosen: Sequence[Choice], than: str, others: Sequence[Choice], truth: Mapping[str, Outcome]
) -> Compared:
    """Compare the rows of two strategies that choose one attempt of a task at most."""

    def tasks(rows: Sequence[Choice], outcome: Outcome) -> set[str]:
        return {each.task.record_id for each in rows if truth[each.attempt.record_id] is outcome}

    pairs = [(tasks(chosen, outcome), tasks(others, outcome)) for outcome in (Outcome.RIGHT, Outcome.WRONG)]
    right, wrong = ((len(one - two), len(two - one)) for one, two in pairs)
    return Compared(name, than, right, wrong)


def table(measured: Sequence[Measured]) -> str:
    """Return the table in Markdown; shares have 95% intervals (Wilson)."""
    head = "| strategy | rows | wrong | tests and code differ elsewhere | precision | recall |\n|---|" + "---:|" * 5
    return "\n".join([head, *(each.line() for each in measured)])


def comparison(compared: Sequence[Compared]) -> str:
    """Return the comparisons in Markdown."""
    head = "| strategy | than | only one right | p | only one wrong | p |\n|---|---|" + "---:|" * 4
    return "\n".join([head, *(each.line() for each in compared)])


def share(part: int, total: int) -> str:
    """Return a share with its 95% interval."""
    if not total:
        return "-"
    low, high = wilson(part, total)
    return f"{part} of {total}: {part / total:.1%} ({low:.1%} to {high:.1%})"
