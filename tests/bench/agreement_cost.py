"""What the strategy "agreement" costs the sandbox: executions and processor seconds for each instruction, by purpose.

    make bench-agreement ARGS="--home DIR"            # attempts of a finished run, as for bench-selection
    make bench-agreement ARGS="--home DIR --run 48"   # and the sandbox's share of a run with so many seeds

Every instruction with an attempt that passes is compared twice, with all its attempts: mutants one by one, and many in
one execution. The two take turns, so that both see the same machine. Processor seconds are those that the machine gave
the runners, isolation included; the seconds of the programs alone are a result's `cpu_seconds`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.home import Home
from codealign.coordinator.agreement import comparing
from codealign.coordinator.agreement.comparing import Compared
from codealign.coordinator.agreement.trials import ADDED, INPUTS, MUTANT, MUTANTS, TESTS, Trial
from codealign.coordinator.runs.strategies import EXECUTED
from tests import gateways
from tests.bench.agreeing import answer
from tests.bench.choosing import Attempt, Task
from tests.bench.judged import Sandbox
from tests.bench.selection import dataset_of, finished

OWN = "own"
PURPOSES = {
    OWN: "attempts with their own tests",
    INPUTS: "attempts at the inputs",
    TESTS: "answers with other attempts' tests",
    MUTANT: "mutants, one each, and survivors at the inputs",
    MUTANTS: "many mutants in one",
    ADDED: "stronger tests",
}
MODES = ("one by one", "together")
SERVICES = ("inference", "sandbox", "dataset", "coordinator")
_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_SECONDS = 1.0


@dataclass
class Cost:
    """What comparisons cost in one mode."""

    executions: Counter[str] = field(default_factory=Counter)
    """By purpose."""
    program_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PURPOSES, 0.0))
    """CPU seconds of the programs by purpose."""
    seconds: float = 0.0
    """Processor seconds of the sandbox for all but the attempts' own tests."""

    @property
    def compared(self) -> int:
        """Executions for comparing."""
        return self.executions.total() - self.executions[OWN]


class Measured:
    """Executes trials and counts what they cost.

    Args:
        sandbox: Where.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def compare(self, task: Sequence[Attempt], cost: Cost, *, together: bool) -> Compared | None:
        """Compare attempts at one task, after executing each with its own tests."""
        own = [
            Trial(OWN, number, number, sb.Program(code=each.code, tests=each.tests), sb.Limits())
            for number, each in enumerate(task)
        ]
        self._execute(own, cost)
        before = processor_seconds(self._sandbox.gateway.process.pid)

        async def execute(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
            return self._execute(trials, cost)

        found = asyncio.run(comparing.compare(task[0].task, list(map(answer, task)), execute, together=together))
        cost.seconds += processor_seconds(self._sandbox.gateway.process.pid) - before
        return found

    def _execute(self, trials: Sequence[Trial], cost: Cost) -> list[sb.Result | None]:
        requests = [
            sb.ExecuteRequest(program=each.program, limits=each.limits, request_id=str(number))
            for number, each in enumerate(trials)
        ]
        results = {int(each.request_id): each for each in self._sandbox.execute(requests)}
        for number, trial in enumerate(trials):
            cost.executions[trial.purpose] += 1
            cost.program_seconds[trial.purpose] += results[number].cpu_seconds
        return [results[number] for number in range(len(trials))]


def processor_seconds(root: int) -> float:
    """Return the processor seconds of a process and its descendants, those that it waited for included."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended
            fields = stat.read_text().rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(pid, 0) for pid in family) / _TICKS


def attempts_of(tasks: Sequence[Task]) -> Iterator[list[Attempt]]:
    """Yield the executed attempts at each task with one that may become a row."""
    for task in tasks:
        attempts = [each for each in task.attempts if each.verdict in EXECUTED]
        if any(answer(each).eligible for each in attempts):
            yield attempts


def differences(one: Compared | None, other: Compared | None) -> int:
    """Return how many mutants have another fate, or all if another answer is the best."""
    if one is None or other is None or one.best != other.best:
        return max(len(each.mutants) for each in (one, other) if each is not None) if one or other else 0
    pairs = zip(one.mutants, other.mutants, strict=True)
    return sum((a.killed, a.outcomes) != (b.killed, b.outcomes) for (_, a), (_, b) in pairs)


def report(instructions: int, attempts: int, mutants: int, different: int, costs: Mapping[str, Cost]) -> str:
    """Return the table in Markdown."""
    head = [
        "for each instruction",
        *(f"executions, {mode}" for mode in costs),
        *(f"program s, {mode}" for mode in costs),
    ]
    rows = [
        [
            title,
            *(f"{cost.executions[purpose] / instructions:.1f}" for cost in costs.values()),
            *(f"{cost.program_seconds[purpose] / instructions:.2f}" for cost in costs.values()),
        ]
        for purpose, title in PURPOSES.items()
    ]
    compared = [f"{cost.compared / instructions:.1f}" for cost in costs.values()]
    given = [f"{cost.seconds / instructions:.2f}" for cost in costs.values()]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{instructions} instructions, {attempts / instructions:.1f} attempts and {mutants / instructions:.1f} mutants "
        f"each; {different} mutants differ between the two.\n\n{table}\n\n"
        f"A comparison: {' / '.join(compared)} executions, {' / '.join(given)} processor seconds of the sandbox "
        f"({' / '.join(costs)})."
    )


def shares(home: Path, seeds: int) -> str:
    """Carry out a run with the strategy, and return the processor seconds of each service as a line."""
    wanted = ("--preset", "nano", "--strategy", "agreement", "--until", "data", "--n", str(seeds))
    command = [sys.executable, "-m", "codealign.cli.main", "run", *wanted, "--home", str(home)]
    used: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for name in SERVICES:
                if endpoint := Home(home).endpoint(name):
                    used[name] = max(used.get(name, 0.0), processor_seconds(endpoint.pid))
            time.sleep(_LOOK_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    total = sum(used.values())
    parts = ", ".join(f"{name} {seconds:.0f} s ({seconds / total:.0%})" for name, seconds in used.items())
    return f"A run with {seeds} seeds, start of the services included: {total:.0f} processor seconds: {parts}."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="home directory of a finished run")
    parser.add_argument("--id", default="", help="beginning of the run's id; default: the newest")
    parser.add_argument("--most", type=int, default=40, help="instructions to compare")
    parser.add_argument("--run", type=int, default=0, help="seeds of a run to carry out as well; 0: none")
    given = parser.parse_args()
    gateways.end_by_signals()
    with dataset_of(Home(given.home)) as dataset:
        tasks = finished(dataset, given.id).tasks()
    found = list(attempts_of(tasks))[: given.most]
    if not found:
        parser.error("--home: no attempt of this run may become a row: choose another run")
    costs = {mode: Cost() for mode in MODES}
    mutants = different = 0
    with contextlib.ExitStack() as stack:
        measured = Measured(Sandbox(stack))
        for number, attempts in enumerate(found):
            order = MODES if number % 2 else MODES[::-1]
            each = {mode: measured.compare(attempts, costs[mode], together=mode == "together") for mode in order}
            one, other = (each[mode] for mode in MODES)
            mutants += len(one.mutants) if one is not None else 0
            different += differences(one, other)
            print(f"compared {number + 1} of {len(found)}", file=sys.stderr, flush=True)
    print(report(len(found), sum(map(len, found)), mutants, different, costs))
    if given.run:
        with tempfile.TemporaryDirectory(prefix="codealign-cost-") as name:
            print(shares(Path(name), given.run))


if __name__ == "__main__":
    main()
