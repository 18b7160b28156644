"""The cost of records: CPU time by service, records per second, memory, and their growth with the run.

    make bench-flow      # or .venv/bin/python -m tests.bench.flow [--seeds 2000 20000] [--databases sqlite postgresql]

The dataset service and the coordinator are real processes; the engine is the simulated one and writes at once, the
sandbox answers at once, so what is left is what records themselves cost. Prints a table; `--write before|after` puts it
into docs/performance/flow.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import grpc

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from tests import gateways
from tests.bench.scene import DATABASES, Scene, empty_database, follow, pipeline_of, run_of, store_seeds

PAGE = Path(__file__).parents[2] / "docs/performance/flow.md"
MEASURED = ("dataset", "coordinator")
AIMS = {"dataset": 1.5, "coordinator": 1.0}
"""Target CPU milliseconds per record."""
_LIMIT_SECONDS = 4 * 3600.0
_LARGE_SEEDS, _LARGE_RESPONSES = 250_000, 2_400_000
_MIB = 2**20
_CREATE_TRIES = 10


@dataclass(frozen=True)
class Measured:
    """Measurements of one run."""

    database: str
    seeds: int
    records: int
    """Number of records that the run made, without seeds."""
    responses: int
    """Number of texts of the last writing stage."""
    rows: int
    seconds: float
    processor: dict[str, float]
    """CPU seconds by service."""
    peak: dict[str, int]
    """Peak memory in bytes by service."""
    stored_bytes: int
    report_seconds: float
    load: float
    """Load average of the machine (one minute), averaged over the polls of the run."""

    def cost(self, service: str) -> float:
        """CPU milliseconds per record."""
        return 1000 * self.processor[service] / self.records

    def row(self) -> str:
        """Return a line of the table."""
        cells = [
            self.database,
            f"{self.seeds:,}",
            f"{self.records:,}",
            f"{self.records / self.seconds:,.0f}",
            *(f"{self.cost(name):.2f}" for name in MEASURED),
            *(f"{1000 * self.processor[name] / self.seeds:.1f}" for name in MEASURED),
            *(f"{self.peak[name] / _MIB:,.0f}" for name in MEASURED),
            f"{self.stored_bytes / self.records:,.0f}",
            f"{self.report_seconds:.2f}",
            f"{self.load:.1f}",
        ]
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| database | seeds | records | records/s | dataset ms | coordinator ms | dataset ms/seed | coordinator ms/seed "
    "| dataset MiB | coordinator MiB | bytes/record | report s | load |\n|---|" + "---:|" * 12
)


def _stored_bytes(folder: Path, url: str) -> int:
    if not url:
        return sum(path.stat().st_size for path in (folder / "data").glob("records.db*"))
    import psycopg

    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(found[0]) if found else 0


def measure(database: str, seeds: int, preset: str, folder: Path) -> Measured:
    """Run the pipeline on this number of seeds and measure it.

    Raises:
        RuntimeError: The run did not succeed; the message says why.
    """
    with empty_database(database) as opened:
        scene = Scene(folder, opened.url, inference={"max_waiting": "100000"})
        with scene.up(), scene.stubs() as (coordinator, dataset):
            store_seeds(dataset, seeds)
            before = {name: scene.services[name].usage() for name in MEASURED}
            stored = _records(dataset.Count(ds.CountRequest(), timeout=300))
            loads: list[float] = []
            started = time.monotonic()
            created = _create(coordinator, run_of(preset, pipeline_of(coordinator)))
            ended = follow(coordinator, created.id, 1.0, _LIMIT_SECONDS, lambda: loads.append(os.getloadavg()[0]))
            seconds = time.monotonic() - started
            if ended.state != pb.RUN_STATE_SUCCEEDED:
                raise RuntimeError(f"the run is {pb.RunState.Name(ended.state)}: {ended.message}")
            after = {name: scene.services[name].usage() for name in MEASURED}
            records = _records(dataset.Count(ds.CountRequest(), timeout=300)) - stored
            asked = time.monotonic()
            coordinator.GetReport(api.GetReportRequest(run=created.id), timeout=600)
            report_seconds = time.monotonic() - asked
            version = dataset.GetVersion(ds.GetVersionRequest(name=ended.version), timeout=60).version
            return Measured(
                database=database,
                seeds=seeds,
                records=records,
                responses=_responses(ended),
                rows=version.rows,
                seconds=seconds,
                processor={name: after[name].processor_seconds - before[name].processor_seconds for name in MEASURED},
                peak={name: after[name].peak_bytes for name in MEASURED},
                stored_bytes=_stored_bytes(folder, opened.url),
                report_seconds=report_seconds,
                load=mean(loads),
            )


def _create(coordinator: CoordinatorServiceStub, run: pb.Run) -> api.RunStatus:
    """Create the run, retrying if an overloaded machine drops a call. Creation is idempotent."""
    for left in reversed(range(_CREATE_TRIES)):
        try:
            return coordinator.CreateRun(api.CreateRunRequest(config=run), timeout=300).run
        except grpc.RpcError as error:
            if not left or error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(1)
    raise AssertionError("unreachable")


def _records(counted: ds.CountResponse) -> int:
    return sum(each.count for each in counted.counts)


def _responses(run: api.RunStatus) -> int:
    """Return the number of items of the stage before execution."""
    names = [str(each.stage) for each in run.stages]
    at = next((number for number, name in enumerate(names) if name.startswith("execut")), len(names))
    return run.stages[at - 1].done if at else 0


def _projection(found: list[Measured]) -> list[str]:
    """Estimate the cost of the paper's full data set from the largest run on each database."""
    lines = []
    for database in dict.fromkeys(each.database for each in found):
        largest = max((each for each in found if each.database == database), key=lambda each: each.seeds)
        per_seed = largest.records / largest.seeds
        by_seeds = per_seed * _LARGE_SEEDS
        by_responses = largest.records / max(1, largest.responses) * _LARGE_RESPONSES
        records = max(by_seeds, by_responses)
        hours = {name: records * largest.cost(name) / 3.6e6 for name in MEASURED}
        lines.append(
            f"- {database}: {_LARGE_SEEDS:,} seeds and {_LARGE_RESPONSES:,} responses are about {records / 1e6:.1f} "
            f"million records: {records * largest.seconds / largest.records / 3600:.1f} hours at this rate on this "
            f"machine, {hours['dataset']:.1f} processor hours of the dataset service and {hours['coordinator']:.1f} of "
            f"the coordinator, {records * largest.stored_bytes / largest.records / 1e9:.0f} GB stored."
        )
        growth = [each for each in found if each.database == database and each is not largest]
        lines += [
            f"- {database}, from {each.seeds:,} to {largest.seeds:,} seeds: seconds per record times "
            f"{largest.seconds / largest.records / (each.seconds / each.records):.2f}, "
            + ", ".join(
                f"peak memory of the {name} times {largest.peak[name] / each.peak[name]:.2f}" for name in MEASURED
            )
            + "."
            for each in growth
        ]
    return lines


def report(found: list[Measured], preset: str) -> str:
    """Return the table with explanations."""
    versions = f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} processors"
    found = sorted(found, key=lambda each: (DATABASES.index(each.database), each.seeds))
    rows = "\n".join(each.row() for each in found)
    return (
        f"{versions}; preset {preset}. Milliseconds of processor time for each record.\n\n{HEAD}\n{rows}\n\n"
        + "\n".join(_projection(found))
        + "\n"
    )


def write(text: str, part: str) -> None:
    """Replace the table in the document."""
    page = PAGE.read_text()
    marks = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    pattern = re.escape(marks[0]) + ".*?" + re.escape(marks[1])
    if len(re.findall(pattern, page, re.DOTALL)) != 1:
        raise SystemExit(f"flow: {PAGE} has no place marked {marks[0]!r}")
    PAGE.write_text(re.sub(pattern, lambda _: marks[0] + text + marks[1], page, flags=re.DOTALL))


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--write", choices=("before", "after"), help="put the table into docs/performance/flow.md")
    parser.add_argument("--keep", type=Path, help="a folder for data and logs, kept; default: a temporary one")
    given = parser.parse_args()
    gateways.end_by_signals()
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="codealign-flow-") as temporary:
        base = given.keep or Path(temporary)
        # Short runs first, and write after each: an interrupted series keeps its measurements.
        for seeds in sorted(given.seeds):
            for database in given.databases:
                found.append(measure(database, seeds, given.preset, base / f"{database}-{seeds}"))
                print(HEAD if len(found) == 1 else "", found[-1].row(), sep="\n" if len(found) == 1 else "", flush=True)
                print(f"  {found[-1].rows:,} rows, {found[-1].seconds:.0f} s", flush=True)
                if given.write:
                    write(report(found, given.preset), given.write)
    text = report(found, given.preset)
    print(f"\n{text}")
    for each in found:
        for name, aim in AIMS.items():
            if each.cost(name) > aim:
                print(f"above the aim of {aim} ms: {name} with {each.database}, {each.seeds:,} seeds")


if __name__ == "__main__":
    main()
