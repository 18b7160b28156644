"""The strategy "agreement" on attempts that are there already: what it chooses, and what it executes for that."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import comparing
from codealign.coordinator.agreement.comparing import Answer, Compared
from codealign.coordinator.agreement.trials import Trial, passes
from codealign.coordinator.runs.strategies import EXECUTED
from tests.bench.choosing import Attempt, Task


class Run(Protocol):
    """Executes programs."""

    def __call__(self, programs: Sequence[sb.Program], limits: Sequence[sb.Limits] = ...) -> Sequence[sb.Result]:
        """Return the results in the order of the programs. Without limits, the sandbox's own apply."""


def compared(
    instruction: str, answers: Sequence[Answer], run: Run, executed: Counter[str] | None = None, *, last: bool = True
) -> Compared | None:
    """Compare answers; see `comparing.compare`.

    Args:
        instruction: Text of the task.
        answers: Its answers.
        run: Executes programs.
        executed: Counts them by purpose.
        last: Whether there are no further answers.
    """

    async def execute(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
        if executed is not None:
            executed.update(trial.purpose for trial in trials)
        return run([trial.program for trial in trials], [trial.limits for trial in trials])

    return asyncio.run(comparing.compare(instruction, answers, execute, last=last))


class Agreement:
    """An order for `choosing.ORDERS`.

    Args:
        run: Executes programs.
        in_steps: Whether attempts are added one after another until they agree enough, as in a run. Otherwise all
            attempts are compared.
    """

    def __init__(self, run: Run, *, in_steps: bool) -> None:
        self._run, self._in_steps = run, in_steps
        self._known: dict[str, list[Attempt]] = {}
        self.executed: Counter[str] = Counter()
        """Trials by purpose."""
        self.drawn = 0
        """Attempts at all tasks that were looked at."""

    def __call__(self, task: Task, run: pb.Run) -> Sequence[Attempt]:
        """Return the attempts that may become the task's row, in order of preference."""
        if task.record_id not in self._known:
            self._known[task.record_id] = self._order(task)
        return self._known[task.record_id]

    def _order(self, task: Task) -> list[Attempt]:
        attempts = [each for each in task.attempts if each.verdict in EXECUTED]
        order: list[Attempt] = []
        for count in range(1, len(attempts) + 1) if self._in_steps else [len(attempts)]:
            own = attempts[:count]
            answers = [answer(each) for each in own]
            if not any(each.eligible for each in answers):
                continue
            found = compared(own[0].task, answers, self._run, self.executed, last=count == len(attempts))
            if found is None:
                continue
            attempts = own
            judged = found.judgement
            winner = judged.classes[0] if judged.classes and not judged.contested else ()
            voters = [i for i in judged.order if judged.attempts[i].has_vote]
            chosen = [i for i in voters if i in winner and answers[i].eligible]
            order = [own[i] for i in sorted(chosen, key=lambda i: i != found.best)]
            break
        self.drawn += 1 + max((each.number for each in attempts), default=-1)
        return order


def answer(attempt: Attempt) -> Answer:
    """Return an executed attempt as what is compared."""
    assert attempt.verdict is not None, "it was executed"
    passed = passes(sb.Result(verdict=attempt.verdict))
    return Answer(attempt.code, attempt.tests, passed, passed is True and not attempt.is_dropped)
