"""What the strategy "agreement" says of every pass of a finished run: no completion is asked for.

    make bench-rejudged ARGS="--home DIR [--id RUN]"

All executed attempts at an instruction are compared, whatever strategy the run had. One part per instruction with a
pass that may become a row.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from codealign.cli.home import Home
from codealign.coordinator.agreement.comparing import Compared
from tests import gateways
from tests.bench.agreeing import answer, compared
from tests.bench.agreement_cost import attempts_of
from tests.bench.choosing import Attempt
from tests.bench.judged import Executions, Sandbox
from tests.bench.selection import dataset_of, finished

_TASK_CHARS = 100


def told(attempts: Sequence[Attempt], found: Compared) -> Iterator[str]:
    """Yield what is said of an instruction: its passes, and the best answer with its tests' strength."""
    task = " ".join(attempts[0].task.split())
    yield f"{attempts[0].record_id[:12]}  {task[:_TASK_CHARS]}{'…' * (len(task) > _TASK_CHARS)}"
    judgement = found.judgement
    for attempt, own in zip(attempts, judgement.attempts, strict=True):
        if answer(attempt).passed:
            dropped = "; a rule for rows drops it" * attempt.is_dropped
            yield f"  attempt {attempt.number} passes: {own.sentence} (probability {own.score:.2f}){dropped}"
    sizes = ", ".join(str(len(members)) for members in judgement.classes) or "none"
    yield f"  {len(attempts)} attempts, classes of {sizes}, {len(judgement.counted)} inputs"
    if found.best is None or judgement.contested:
        yield "  no row: the attempts contradict each other"
        return
    strength = judgement.attempts[found.best].strength
    score = "undecided" if strength.score is None else f"{strength.score:.0%}"
    kinds = f"{strength.killed} killed, {strength.survived} survive, {strength.equivalent} change nothing"
    yield f"  row: attempt {attempts[found.best].number}; mutation score {score} ({kinds})"
    if found.tests:
        yield from (f"  added: {each.text}" for each in judgement.attempts[found.best].added)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="home directory of a run")
    parser.add_argument("--id", default="", help="beginning of the run's id; default: the newest")
    given = parser.parse_args()
    gateways.end_by_signals()
    with dataset_of(Home(given.home)) as dataset:
        run = finished(dataset, given.id)
        found = list(attempts_of(run.tasks()))
    kept = 0
    with contextlib.ExitStack() as stack:
        execute = Executions(given.home / "judged.jsonl", Sandbox(stack).execute).of
        for attempts in found:
            judged = compared(attempts[0].task, list(map(answer, attempts)), execute)
            if judged is not None:
                print("\n".join(told(attempts, judged)), flush=True)
                kept += judged.best is not None and not judged.judgement.contested
    print(f"{len(found)} instructions with a pass that may become a row: {kept} give one")


if __name__ == "__main__":
    main()
