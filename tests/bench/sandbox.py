"""Execution rate of programs in the sandbox, without one, and with alternatives.

    .venv/bin/python -m tests.bench.sandbox [--seconds 10] [--rounds 5] [--json FILE] [--rows ours] [--runsc PATH]

Prints a table in Markdown, the memory of a runner and of a slot, and the ratios that are aimed at. All ways are
measured in short rounds by turns, since the machine's speed changes; each figure is the median over the rounds.
`CODEALIGN_BENCHMARK_DATA` names a folder with EvalPlus' files, for the typical programs. Says nothing against a slow
machine: ends with 1 only where an execution had a wrong end, or where something is left behind.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner.profiles import DEFAULT
from codealign.sandbox import gvisor
from codealign.sandbox.runners.runsc import PLATFORMS
from services.sandbox.tests.conftest import Gateway
from tests import gateways
from tests.bench.rows import programs, table
from tests.bench.rows.boxes import Boxes
from tests.bench.rows.callers import Caller, memory_bytes
from tests.bench.rows.table import Cell
from tests.bench.rows.workers import BASE, RowFailed, Worker, plain

SHAPES = ((1, 1), (2, 1), (1, 2))
"""Number of runners, and slots of each."""
NUMPY_SHAPE = (2, 1)
"""The shape that also runs programs with numpy."""
WORKERS = (1, 2)
"""Callers at once. The ratios that are aimed at are of one and two."""
SYSTEM = "/usr/bin/python3"
_NOBODY = 65534
_WARM_UP_SECONDS = 0.3
MIB = 2**20

Open = Callable[[str], Any]
"""Opens a worker for a kind of programs; it has `run` and `close`."""


@dataclass
class Bench:
    """Everything that the benchmark starts, until its end."""

    stack: contextlib.ExitStack
    cache: Path
    gateways: dict[str, Gateway] = field(default_factory=dict)
    rows: dict[str, tuple[Open, tuple[str, ...]]] = field(default_factory=dict)
    """Rows by name: how to create a worker, and the kinds of programs."""
    workers: dict[tuple[str, str], list[Worker]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    platforms: dict[str, str] = field(default_factory=dict)
    """The platform of each gateway. With "auto" it depends on the number of runners."""

    def start_gateways(self, platform: str, wanted: tuple[str, ...]) -> pb.Runner:
        """Start all measured gateways, and always one, and return a runner of the last."""
        for runners, slots in SHAPES:
            name = f"ours {runners}×{slots}"
            kinds = programs.KINDS if (runners, slots) == NUMPY_SHAPE else ("empty", "typical")
            if self.gateways and not name.startswith(wanted):
                continue
            print(f"starting {name}", flush=True)
            gateway = self.stack.enter_context(gateways.started(self.cache, runners, slots, platform=platform))
            self.gateways[name] = gateway
            time.sleep(1)
            self.memory[name] = memory_bytes(gateway)
            if name.startswith(wanted):
                self.rows[name] = functools.partial(_caller, gateway), kinds
            runner = gateway.stub.GetRunner(pb.GetRunnerRequest(), timeout=10).runners[0]
            self.platforms[name] = runner.platform
        return runner

    def add_plain(self) -> None:
        """Add the ways without a sandbox."""
        python = SYSTEM if Path(SYSTEM).exists() else BASE
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="codealign-", dir="/dev/shm")))
        user = _NOBODY if os.geteuid() == 0 and python == SYSTEM else None
        if user is not None:
            shutil.chown(folder, user)
        self.rows["spawn: python -I -c"] = (lambda _: plain(BASE, "spawn", sys.executable, "-I", "-c")), programs.KINDS
        self.rows[table.PAPER] = (lambda _: plain(python, "shell", python, str(folder), user=user)), programs.KINDS
        self.rows["warm fork server"] = self._fork_server, programs.KINDS

    def _fork_server(self, kind: str) -> Any:
        if kind == "numpy":
            return plain(sys.executable, "fork", *DEFAULT.modules, "numpy")
        return plain(BASE, "fork", *DEFAULT.modules, *DEFAULT.more)

    def add_boxed(self, platform: str) -> None:
        """Add the other ways in gVisor."""
        boxes = Boxes(self.cache, platform)
        self.rows["spawn in gVisor: python -I -S -c"] = (lambda _: boxes.spawner()), programs.KINDS
        self.rows[table.FLOOR] = (lambda _: boxes.driver("bare", *DEFAULT.modules)), ("fork",)
        self.rows["fork and exit in gVisor, static C"] = (lambda _: boxes.forks()), ("fork",)

    def measure(self, cell: Cell, seconds: float, given: tuple[programs.Program, ...]) -> None:
        """Measure one round of a cell. Its first round starts what it needs, after a short warm-up."""
        kept = self.workers.setdefault((cell.row, cell.kind), [])
        while len(kept) < cell.workers:
            worker = self.rows[cell.row][0](cell.kind)
            self.stack.callback(worker.close)
            sample = worker.run(_WARM_UP_SECONDS, given)
            if cell.kind == "numpy" and sample.faults:
                raise RowFailed(f"no numpy there ({sample.faults[0].splitlines()[-1].rpartition(': ')[2]})")
            kept.append(worker)
        with concurrent.futures.ThreadPoolExecutor(cell.workers) as pool:
            cell.rounds.append(list(pool.map(lambda worker: worker.run(seconds, given), kept[: cell.workers])))


def _caller(gateway: Gateway, _: str) -> Caller:
    return Caller(gateway)


def inline_seconds(kinds: dict[str, tuple[programs.Program, ...]]) -> dict[str, float]:
    """Return the seconds of a program of each kind in an existing process: the median over programs and several
    runs."""
    found = {"fork": 0.0}
    for kind, given in kinds.items():
        driver = plain(sys.executable, "inline")
        try:
            driver.run(_WARM_UP_SECONDS, given)
            sample = driver.run(_WARM_UP_SECONDS, given)
            found[kind] = statistics.median(sample.latencies)
        except RowFailed:
            pass  # numpy is not installed here either.
        finally:
            driver.close()
    return found


def run(given: argparse.Namespace, stack: contextlib.ExitStack, cache: Path) -> dict[str, Any]:
    """Measure, print, and return the record."""
    kinds, source = programs.load()
    inline = inline_seconds(kinds)
    bench = Bench(stack, cache)
    wanted = tuple(given.rows or ("",))
    runner = bench.start_gateways(given.platform, wanted)
    bench.add_plain()
    bench.add_boxed(runner.platform)
    kinds["fork"] = kinds["empty"]
    cells = [
        Cell(row, kind, workers)
        for row, (_, row_kinds) in bench.rows.items()
        if row.startswith(wanted)
        for kind in row_kinds
        for workers in given.workers
    ]
    if not cells:
        raise SystemExit(f"--rows: no row begins with {' or '.join(wanted)}; rows: {', '.join(bench.rows)}")
    for number in range(given.rounds):
        for cell in cells:
            try:
                if cell.reason:
                    continue
                bench.measure(cell, given.seconds / given.rounds, kinds[cell.kind])
            except RowFailed as error:
                cell.reason = str(error)
            shown = cell.reason or f"{cell.rate:.1f} per second so far"
            print(f"round {number + 1} of {given.rounds}: {cell.row}, {cell.kind}, {cell.workers}: {shown}", flush=True)
    about = {
        "platform": runner.platform,
        "platforms": bench.platforms,
        "runsc": runner.gvisor_version,
        "python": runner.python_version,
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "typical_programs": source,
        "inline_seconds": inline,
        "seconds": given.seconds,
        "rounds": given.rounds,
    }
    after = {name: memory_bytes(gateway) for name, gateway in bench.gateways.items()}
    report(about, cells, bench.memory, after)
    return {
        "about": about,
        "cells": [
            {
                "row": cell.row,
                "program": cell.kind,
                "workers": cell.workers,
                "reason": cell.reason,
                "faults": cell.faults,
            }
            | (cell.figures(inline.get(cell.kind, 0.0)) if cell.rounds else {})
            | {"round_latencies_seconds": [[one.latencies for one in samples] for samples in cell.rounds]}
            for cell in cells
        ],
        "ratios": [{"name": name, "value": value, "aim": aim} for name, value, aim in table.ratios(cells)],
        "memory_bytes": {"idle": bench.memory, "after": after},
    }


def report(
    about: dict[str, Any], cells: list[Cell], idle: dict[str, dict[str, float]], after: dict[str, dict[str, float]]
) -> None:
    """Print the results in Markdown."""
    print(
        f"\nrunsc {about['runsc']} on {about['platform']}, Python {about['python']}, {about['processors']} processors"
    )
    print("; ".join(f"{name} on {platform}" for name, platform in about["platforms"].items()))
    print(f"typical: {about['typical_programs']}")
    took = ", ".join(f"{kind} {1e3 * seconds:.2f} ms" for kind, seconds in about["inline_seconds"].items())
    print(f"in a process that is there: {took}\n")
    print("\n".join(table.lines(cells, about["inline_seconds"], about["processors"])))
    print("\n| memory, MiB | gateway | runners, shared pages once | runners, resident | the same after the load |")
    print("|---|---:|---:|---:|---:|")
    for name, found in idle.items():
        values = [*(found[key] for key in ("gateway", "runners", "runners_rss")), after[name]["runners"]]
        print(f"| {name} | {' | '.join(f'{value / MIB:.0f}' for value in values)} |")
    one = idle.get("ours 1×1", {}).get("runners", 0)
    for name, what in (("ours 2×1", "another runner"), ("ours 1×2", "another slot")):
        if name in idle and one:
            print(f"| {what} | | {(idle[name]['runners'] - one) / MIB:.0f} | | |")
    print("\n| ratio | value | aim |\n|---|---:|---|")
    for name, value, aim in table.ratios(cells):
        print(f"| {name} | {value:.2f} | {aim} |")


def main() -> int:
    """Measure, print, and check that every execution ended as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each line of the table, over all rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", action="append", help="only rows whose name begins so; can be repeated")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="callers at once, such as 1 2 8")
    parser.add_argument("--runsc", type=Path, help="another runsc than the one that a gateway finds")
    parser.add_argument("--platform", choices=("auto", *PLATFORMS), default="auto")
    parser.add_argument("--json", type=Path, help="write everything there too")
    given = parser.parse_args()
    for name, least in (("seconds", 0.1), ("rounds", 1)):
        if getattr(given, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(given, name)}")
    if min(given.workers) < 1:
        parser.error(f"--workers must be at least 1, got {min(given.workers)}")
    try:
        if given.runsc is not None:
            gvisor.examine(given.runsc)
    except gvisor.Unusable as error:
        parser.error(f"--runsc {given.runsc}: {error}")
    gateways.end_by_signals()
    with gateways.own_cache(given.runsc) as cache:
        with contextlib.ExitStack() as stack:
            found = run(given, stack, cache)
        left = gateways.left_over(cache)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    wrong = [f"{cell['row']}, {cell['program']}: {fault}" for cell in found["cells"] for fault in cell["faults"]]
    for line in [*(f"wrong: {fault}" for fault in wrong), *(f"left: {name}" for name in left)]:
        print(line, flush=True)
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
