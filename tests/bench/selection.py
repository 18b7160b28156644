"""How much of what each selection strategy chooses is right, by truth: on the tasks of nano's world.

    make bench-selection ARGS="--home DIR"           # a finished run in a home directory
    make bench-selection ARGS="--home DIR --run"     # a new run on nano first: 6 attempts at each task, all drawn

All readable responses of the run are judged once in the sandbox: against the meaning of their task, and by their own
tests with other arguments. The results are kept in DIR/judged.jsonl. Then every strategy chooses among the same
attempts, as the runner does once it has drawn all of them. Rules for rows are those that the run applied, so a run
whose strategy takes every verdict ("everything", as with --run) tells most.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.home import Home
from codealign.common.sequences import batched
from codealign.coordinator import pipelines
from codealign.coordinator.pipelines.selfcodealign.selection import instruction_of
from codealign.coordinator.pipelines.stage import Item, Settings, Writing
from codealign.coordinator.runs.config import ROW_RULES, draws_id, stage_configs
from codealign.coordinator.runs.prompting import child_key
from codealign.coordinator.runs.strategies import STRATEGIES
from codealign.nano import judgement, varied
from codealign.nano.judgement import UNKNOWN, Checks, Judgement, Outcome
from tests import gateways
from tests.bench.agreeing import Agreement
from tests.bench.choosing import ORDERS, Attempt, Choice, Task, choose, compare, comparison, measure, table
from tests.bench.draws import records
from tests.bench.judged import Executions, Sandbox
from tests.bench.processes import Service

ATTEMPTS = 6
_KINDS = (pb.KIND_SEED, pb.KIND_CONCEPT_SET, pb.KIND_INSTRUCTION, pb.KIND_RESPONSE, pb.KIND_VERDICT, pb.KIND_DECISION)
_PAGE = 1000
_MESSAGE = [("grpc.max_receive_message_length", -1)]


@dataclass
class Finished:
    """The records of a finished run.

    Args:
        run: The run's record.
        found: Records of the run by id.
    """

    run: pb.Record
    found: Mapping[str, pb.Record]
    _items: dict[str, Item] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pipeline = pipelines.get(self.run.run.pipeline)
        self.settings = Settings(self.run.run)
        self._configs = stage_configs(self.run.run)
        self._writing = {self._configs[stage.name].id: stage for stage in self.pipeline.writing}
        self._draws = {stage.name: draws_id(self.run.run, stage.name) for stage in self.pipeline.writing}

    def tasks(self) -> list[Task]:
        """Return the run's tasks with their readable responses.

        Raises:
            ValueError: No model answers tasks in the run's pipeline.
        """
        candidates, execution = self.pipeline.candidates, self.pipeline.execution
        if not isinstance(candidates, Writing) or candidates.makes != pb.KIND_RESPONSE or execution is None:
            raise ValueError(f"pipeline {self.pipeline.name!r} executes no answers of a model: choose another run")
        made_by, judged_by = self._configs[candidates.name].id, self._configs[execution.name].id
        verdicts = {
            record.parents[0]: record.verdict.result.verdict
            for record in self.found.values()
            if record.kind == pb.KIND_VERDICT and record.stage_config_id == judged_by
        }
        dropped = {
            record.parents[0]
            for record in self.found.values()
            if record.kind == pb.KIND_DECISION
            and record.stage_config_id == self._configs[ROW_RULES].id
            and record.decision.outcome == pb.Decision.OUTCOME_DROPPED
        }
        attempts: dict[str, list[Attempt]] = defaultdict(list)
        for record in self.found.values():
            if record.kind == pb.KIND_RESPONSE and record.stage_config_id == made_by:
                attempt = self._attempt(record, verdicts.get(record.id), is_dropped=record.id in dropped)
                attempts[record.parents[0]].append(attempt)
        return [self._task(record_id, found) for record_id, found in sorted(attempts.items())]

    def _task(self, record_id: str, attempts: Sequence[Attempt]) -> Task:
        item = self._item(record_id)
        ordered = tuple(sorted(attempts, key=lambda each: (each.number, each.position)))
        return Task(record_id, item.key, [each.id for each in item.line.values()], ordered)

    def _attempt(self, record: pb.Record, verdict: sb.Verdict.ValueType | None, *, is_dropped: bool) -> Attempt:
        item = self._item(record.id)
        answered = instruction_of(item)
        return Attempt(
            record.id,
            record.attempt,
            int(record.key or 0),
            item.key,
            answered.text if answered is not None else "",
            record.response.code,
            record.response.tests,
            verdict,
            is_dropped,
            self.pipeline.selection.compared(item, self.settings),
        )

    def _item(self, record_id: str) -> Item:
        """Return a record with its key and what it derives from."""
        if record_id not in self._items:
            record = self.found[record_id]
            stage = self._writing.get(record.stage_config_id)
            if stage is None:
                self._items[record_id] = Item(record, record.id, {self.pipeline.seeds.name: record})
            else:
                parent, number = self._item(record.parents[0]), int(record.key or 0)
                key = child_key(stage, self._draws[stage.name], parent.key, record.attempt, number)
                self._items[record_id] = Item(record, key, {**parent.line, stage.name: record})
        return self._items[record_id]


@contextlib.contextmanager
def dataset_of(home: Home) -> Iterator[DatasetServiceStub]:
    """Provide the dataset service of a home directory, started here unless it is running."""
    with contextlib.ExitStack() as stack:
        running = home.endpoint("dataset")
        if running is not None:
            address = running.address
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="codealign-selection-")))
            service = Service("dataset", folder, {"data_dir": str(home.data.resolve())})
            stack.callback(service.stop)
            service.start()
            service.wait_ready()
            address = service.address
        yield DatasetServiceStub(stack.enter_context(grpc.insecure_channel(address, options=_MESSAGE)))


def finished(dataset: DatasetServiceStub, wanted: str) -> Finished:
    """Return a run's records.

    Args:
        dataset: Where they are.
        wanted: The beginning of the run's id. Empty: the newest run.

    Raises:
        ValueError: There is no such run.
    """
    runs = [record for record in records(dataset, "", pb.KIND_RUN) if record.id.startswith(wanted)]
    if not runs:
        raise ValueError(f"no run {wanted or 'at all'} in this home directory: make one with --run")
    run = max(runs, key=lambda record: record.provenance.created_at.ToNanoseconds())
    found = {record.id: record for kind in _KINDS for record in records(dataset, run.id, kind)}
    # A collection of instructions, which a run may begin with, is not part of the run.
    parents = {record.parents[0] for record in found.values() if record.kind == pb.KIND_RESPONSE}
    for missing in batched(sorted(parents - found.keys()), _PAGE):
        found |= {record.id: record for record in dataset.Get(ds.GetRequest(ids=missing), timeout=60).records}
    return Finished(run, found)


def checks_of(tasks: Sequence[Task]) -> tuple[dict[str, Checks | None], dict[str, Checks | None]]:
    """Return the checks of each attempt by its record's id: by truth, and by its own tests with other arguments."""
    meant = functools.cache(judgement.checks)
    attempts = [attempt for task in tasks for attempt in task.attempts]
    truth = {each.record_id: meant(each.task) for each in attempts}
    return truth, {each.record_id: varied.checks(each.tests) for each in attempts}


def judge(tasks: Sequence[Task], checks: Mapping[str, Checks | None], executions: Executions) -> dict[str, Judgement]:
    """Return the judgement of each attempt by its record's id.

    Args:
        tasks: The tasks.
        checks: The checks of each attempt.
        executions: Executes programs.
    """
    attempts = [attempt for task in tasks for attempt in task.attempts]
    known = {
        each.record_id: (found, found.program(each.code)) for each in attempts if (found := checks[each.record_id])
    }
    results = executions.of([program for _, program in known.values()])
    judged = {
        record_id: found.judgement(result)
        for (record_id, (found, _)), result in zip(known.items(), results, strict=True)
    }
    return {each.record_id: judged.get(each.record_id, UNKNOWN) for each in attempts}


def report(run: Finished, tasks: Sequence[Task], truth: Mapping[str, Judgement], own: Mapping[str, Judgement]) -> str:
    """Return what is known of the attempts, and the tables, in Markdown."""
    right = {record_id: each.outcome for record_id, each in truth.items()}
    agreeing = {record_id: each.outcome for record_id, each in own.items()}
    rules = run.pipeline.selection.duplicate_rules
    chosen: dict[str, list[Choice]] = {name: choose(name, tasks, run.run.run, rules) for name in ORDERS}
    single = [name for name in chosen if name not in STRATEGIES or not STRATEGIES[name].several]
    first, *others = single
    known = sum(any(right[each.record_id] is not Outcome.UNKNOWN for each in task.attempts) for task in tasks)
    counts, varied_counts = Counter(right.values()), Counter(agreeing.values())
    strategy = run.run.run.selection.strategy
    partly = "" if STRATEGIES[strategy].draws_all else f" Only {strategy} is exact: the run did not draw all attempts."
    return "\n\n".join(
        (
            f"run {run.run.id[:12]}, pipeline {run.pipeline.name}, strategy {strategy}: {len(tasks):,} tasks with "
            f"{len(right):,} readable responses; the meaning of {known:,} tasks is known.{partly}",
            f"By truth: {_counted(counts)}. By their tests with other arguments: {_counted(varied_counts)}.",
            table([measure(name, rows, tasks, right, agreeing) for name, rows in chosen.items()]),
            comparison([compare(name, chosen[name], first, chosen[first], right) for name in others]),
        )
    )


def _counted(counts: Counter[Outcome]) -> str:
    return ", ".join(f"{counts[outcome]:,} {outcome.value}" for outcome in Outcome)


def make_run(home: Path, more: Sequence[str]) -> None:
    """Carry out a run on nano in which every attempt is drawn and executed."""
    wanted = ("--preset", "nano", "--attempts", str(ATTEMPTS), "--strategy", "everything", "--until", "data")
    command = [sys.executable, "-m", "codealign.cli.main", "run", *wanted, *more, "--home", str(home)]
    subprocess.run(command, check=True)


def main() -> None:
    """Judge all responses of a run, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="home directory of a run")
    parser.add_argument("--id", default="", help="beginning of the run's id; default: the newest")
    parser.add_argument("--run", action="store_true", help="carry out a run on nano first")
    parser.add_argument("--seeds", type=int, default=0, help="seeds of that run; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of that run's randomness")
    given = parser.parse_args()
    gateways.end_by_signals()
    if given.run:
        make_run(given.home, ("--n", str(given.seeds), "--seed", str(given.seed)))
    with dataset_of(Home(given.home)) as dataset:
        run = finished(dataset, given.id)
    tasks = run.tasks()
    with contextlib.ExitStack() as stack:
        executions = Executions(given.home / "judged.jsonl", Sandbox(stack).execute)
        truth, own = (judge(tasks, checks, executions) for checks in checks_of(tasks))
        ORDERS["agreement"] = agreement = Agreement(executions.of, in_steps=True)
        ORDERS["agreement of all"] = Agreement(executions.of, in_steps=False)
        print(report(run, tasks, truth, own))
    print(f"\nagreement looked at {agreement.drawn:,} attempts and executed {dict(agreement.executed)}")


if __name__ == "__main__":
    main()
