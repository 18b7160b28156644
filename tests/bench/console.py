"""How fast the console's pages are on a large store, and whether its memory stays flat.

    make bench-console      # or .venv/bin/python -m tests.bench.console [--seeds 52000] [--folder DIR] [--write]

A run over synthetic seeds makes the records through the real dataset service and the real coordinator, with the
simulated engine at full speed; 52,000 seeds are about a million. Then every page is read from a console process, one
request after the other, as a person's browser would. `--folder` keeps the store, and uses it again. `--write` puts the
table into docs/console.md.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlencode

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from tests.bench.scene import COLLECTION, DATABASES, Scene, empty_database, follow, pipeline_of, run_of, store_seeds
from tests.ports import free_port

PAGE = Path(__file__).parents[2] / "docs/console.md"
AIM_MILLISECONDS = 300
"""Target of every page at the 95th percentile."""
_LIMIT_SECONDS = 4 * 3600.0
_DEEP = 40
"""Pages that the measurement of later pages turns."""


@dataclass(frozen=True)
class Measured:
    """Times of one page in milliseconds."""

    name: str
    times: list[float]
    kib: float

    def row(self) -> str:
        """Return a line of the table."""
        cuts = quantiles(self.times, n=20)
        return f"| {self.name} | {cuts[9]:.0f} | {cuts[18]:.0f} | {max(self.times):.0f} | {self.kib:,.0f} |"


class Console:
    """A console process."""

    def __init__(self, scene: Scene) -> None:
        self.port = free_port()
        environment = {
            **os.environ,
            "CODEALIGN_CONSOLE_PORT": str(self.port),
            "CODEALIGN_CONSOLE_DATASET_ADDRESS": scene.services["dataset"].address,
            "CODEALIGN_CONSOLE_COORDINATOR_ADDRESS": scene.services["coordinator"].address,
        }
        self.process = subprocess.Popen([sys.executable, "-m", "codealign.console.main"], env=environment)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                self.connection.connect()
                return
            if time.monotonic() > deadline:
                raise TimeoutError("the console does not answer")
            time.sleep(0.1)

    def read(self, url: str) -> str:
        """Return a page."""
        self.connection.request("GET", url)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, (url, answer.status, text[:300])
        assert "This page is not complete" not in text.replace("The training service", ""), (url, text)
        return text

    def memory(self) -> tuple[float, float]:
        """Return the process' memory now and its peak, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = [int(re.search(rf"{name}:\s+(\d+)", status).group(1)) / 1024 for name in ("VmRSS", "VmHWM")]  # type: ignore[union-attr]
        return found[0], found[1]

    def close(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait(timeout=20)


def pages(console: Console, run: str, row: pb.Record) -> Iterator[tuple[str, list[str]]]:
    """Yield the pages to measure: a name, and the addresses that are read in turn."""

    def records(kind: str, **filters: str) -> str:
        return f"/records?{urlencode({'collection': run, 'kind': kind, **filters})}"

    yield "runs", ["/"]
    yield "a run", [f"/runs/{run}"]
    yield "data", ["/data"]
    yield "verdicts, newest", [records("verdict")]
    yield "verdicts of one name", [records("verdict", label="FAILED_ASSERTION")]
    yield "decisions of one rule", [records("decision", label="chosen"), records("decision", outcome="dropped")]
    yield "completions, newest", [records("completion")]
    yield "rows, newest", [records("example")]
    yield "instructions of one category", [records("instruction", category="class")]
    yield "responses with a frequent text", [records("response", text="return")]
    yield "completions without a text (nothing found)", [records("completion", text="no such text anywhere")]
    later, url = [], records("response")
    for _ in range(_DEEP):
        found = re.search(r'href="(/records\?[^"]+)" rel="next"', console.read(url))
        if found is None:
            break
        url = found.group(1).replace("&amp;", "&")
        later.append(url)
    yield f"responses, pages 2 to {len(later) + 1}", later
    yield "a row with its lineage", [f"/records/{row.id}?run={run}"]
    yield "a seed with all that was made of it", [f"/records/{row.example.lineage[0].record_id}"]
    yield "two runs side by side", [f"/compare?a={run}&b={run}"]
    yield "evaluations", ["/evaluations"]


def prepared(coordinator: CoordinatorServiceStub, dataset: DatasetServiceStub, seeds: int) -> api.RunStatus:
    """Return the run, made now if the store has none."""
    listed = coordinator.ListRuns(api.ListRunsRequest(summary_only=True), timeout=60).runs
    if not listed:
        store_seeds(dataset, seeds)
        made = coordinator.CreateRun(
            api.CreateRunRequest(config=run_of("nano", pipeline_of(coordinator))), timeout=60
        ).run.id
        return follow(coordinator, made, 5.0, _LIMIT_SECONDS)
    return follow(coordinator, listed[0].id, 5.0, _LIMIT_SECONDS)


def measure(folder: Path, database: str, seeds: int, requests: int) -> tuple[list[str], str]:
    """Return the lines of the table, and a sentence about store and memory."""
    with empty_database(database) as opened:
        scene = Scene(folder, opened.url, inference={"max_waiting": "100000"})
        with scene.up(), scene.stubs() as (coordinator, dataset):
            run = prepared(coordinator, dataset, seeds)
            counts = dataset.Count(ds.CountRequest(), timeout=60).counts
            (row,) = dataset.Scan(
                ds.ScanRequest(collection=run.id, kind=pb.KIND_EXAMPLE, page_size=1), timeout=60
            ).records
            console = Console(scene)
            try:
                lines, memory = [], []
                for name, urls in pages(console, run.id, row):
                    console.read(urls[0])
                    times, size = [], 0
                    for number in range(max(requests, len(urls))):
                        started = time.perf_counter()
                        text = console.read(urls[number % len(urls)])
                        times.append(1000 * (time.perf_counter() - started))
                        size = max(size, len(text))
                    measured = Measured(name, times, size / 1024)
                    lines.append(measured.row())
                    memory.append(console.memory()[0])
                    print(measured.row(), f"{memory[-1]:.0f} MiB", flush=True)
                now, peak = console.memory()
            finally:
                console.close()
    told = (
        f"{sum(one.count for one in counts):,} records in {database}, {COLLECTION} included; Python "
        f"{platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[1]:.1f}. Memory of the "
        f"console: {memory[0]:.0f} MiB after the first page, {now:.0f} MiB after the last, {peak:.0f} MiB at most."
    )
    return lines, told


def main() -> None:
    """Measure and print, and write the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=52_000)
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="codealign-console-")))
        folder.mkdir(parents=True, exist_ok=True)
        lines, told = measure(folder, given.database, given.seeds, given.requests)
    head = "| page | p50 ms | p95 ms | slowest ms | KiB |\n|---|---:|---:|---:|---:|"
    table = f"{told}\n\n{head}\n" + "\n".join(lines)
    print(table)
    if given.write:
        text = PAGE.read_text()
        marked = re.compile(r"(?<=<!-- times: begin -->\n).*?(?=<!-- times: end -->)", re.DOTALL)
        PAGE.write_text(marked.sub(lambda _: f"{table}\n", text))


if __name__ == "__main__":
    main()
