"""Runs under random faults: they must publish exactly the same bytes as undisturbed runs.

    make chaos      # or .venv/bin/python -m tests.chaos.run_chaos [--faults 100] [--seed N] [--database postgresql]

Dataset service, coordinator and engine (simulated) are real processes, the sandbox is one that answers at once, or the
real one with `--sandbox real`. The coordinator reaches the others through proxies. Runs follow one another until all
faults have been; then each is made again undisturbed, in a store of its own. Ends with 1 where a run does not end by
itself, a published byte differs, a row is lost or doubled, or the stores differ in what they hold. The seed is printed;
it decides which faults come and how long they last, not at which record they strike.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pyarrow.parquet as pq

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from tests import gateways
from tests.bench.scene import DATABASES, ENDED, SQLITE, Scene, empty_database, follow, pipeline_of, run_of, store_seeds
from tests.chaos import disk, faults
from tests.chaos.proxy import Proxy
from tests.ports import free_port

_BEHIND_PROXIES = ("dataset", "inference", "sandbox")
_DISK_BYTES = 2**30
_POLL_SECONDS = 0.1
_CALL_SECONDS = 5.0
_LONGEST_GAP_SECONDS = 2.0
_OF_THE_CONTROL_PLANE = frozenset({"KIND_RUN_EVENT", "KIND_RUN_REQUEST", "KIND_WORK_LOG"})
"""Kinds of records about requests, states and work, of which a disturbed run may have more."""


@dataclass(frozen=True)
class Size:
    """Extent of the test."""

    faults: int = 100
    seconds: float = 20.0
    """See `faults.Stage`."""
    seeds: int = 40
    speed: float = 6.0
    """Speed of the engine, so that a run lasts for several faults."""
    settle_seconds: float = 900.0
    """Seconds after the last fault within which a run must end."""


@dataclass
class Found:
    """Result of the test."""

    runs: list[str] = field(default_factory=list)
    """Versions in the order of the runs."""
    injected: list[str] = field(default_factory=list)
    revived: Counter[str] = field(default_factory=Counter)
    """Services that ended by themselves and were restarted, as by a supervisor."""
    wrong: list[str] = field(default_factory=list)
    rows: int = 0


@dataclass(frozen=True)
class _Store:
    """Final content of a store."""

    files: dict[str, str]
    """sha256 by version and path."""
    rows: dict[str, list[str]]
    """Ids of the rows by version, in order."""
    counts: dict[tuple[str, str], int]


class _Series:
    """Successive runs under faults."""

    def __init__(self, stage: faults.Stage, size: Size, seed: int, found: Found) -> None:
        self._stage, self._size, self._found = stage, size, found
        self._dice = random.Random(seed)
        self._faults = faults.drawn(stage, self._dice)
        self._pipeline = api.Pipeline()
        self._started = time.monotonic()
        self._next_at = time.monotonic() + 1.0

    def play(self) -> None:
        """Run until all faults have occurred and the last affected run has ended."""
        with self._stage.scene.stubs() as (coordinator, _):
            self._pipeline = pipeline_of(coordinator)
            for number in itertools.count():
                if len(self._found.injected) >= self._size.faults:
                    return
                status = self._run(coordinator, number)
                self._found.runs.append(status.version)
                self._say(f"run {number}: {pb.RunState.Name(status.state)} {status.version} {status.message}")
                if status.state != pb.RUN_STATE_SUCCEEDED:
                    state = pb.RunState.Name(status.state)
                    self._found.wrong.append(f"run {number} did not end by itself: {state}: {status.message}")
                    return

    def _run(self, coordinator: CoordinatorServiceStub, number: int) -> api.RunStatus:
        settled_by, last = float("inf"), api.RunStatus()
        run = ""
        while True:
            self._revive()
            # CreateRun is idempotent, so a lost call can be repeated.
            with contextlib.suppress(grpc.RpcError):
                if not run:
                    request = api.CreateRunRequest(config=run_of("nano", self._pipeline, number))
                    run = coordinator.CreateRun(request, timeout=_CALL_SECONDS).run.id
                last = coordinator.GetRun(api.GetRunRequest(run=run), timeout=_CALL_SECONDS).run
                if last.state in ENDED:
                    return last
            if len(self._found.injected) < self._size.faults:
                if time.monotonic() >= self._next_at:
                    self._inject()
            elif settled_by == float("inf"):
                settled_by = time.monotonic() + self._size.settle_seconds
            if time.monotonic() > settled_by:
                last.message = f"not ended {self._size.settle_seconds:.0f} s after the last fault: {last.waiting_for}"
                return last
            time.sleep(_POLL_SECONDS)

    def _inject(self) -> None:
        fault = next(self._faults)
        self._say(f"fault {len(self._found.injected) + 1}: {fault.name}")
        self._found.injected.append(fault.name)
        fault.run()
        self._next_at = time.monotonic() + self._dice.uniform(0, _LONGEST_GAP_SECONDS)

    def _revive(self) -> None:
        for name, service in self._stage.scene.services.items():
            if not service.pid and name not in self._stage.down:
                self._found.revived[name] += 1
                self._say(f"{name} has ended, and is started again")
                service.start()

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:7.1f} s  {text}", flush=True)


def _look(scene: Scene) -> _Store:
    versions = scene.folder / "data" / "versions"
    files = {
        str(path.relative_to(versions)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(versions.rglob("*"))
        if path.is_file()
    }
    rows: dict[str, list[str]] = {}
    for path in sorted(versions.rglob("*.parquet")):
        table = pq.read_table(path)
        rows.setdefault(path.relative_to(versions).parts[0], []).extend(map(str, table.column("id").to_pylist()))
    with scene.stubs() as (_, dataset):
        counted = dataset.Count(ds.CountRequest(), timeout=60).counts
    counts: Counter[tuple[str, str]] = Counter()
    for each in counted:
        counts[pb.Kind.Name(each.kind), each.label] += each.count
    return _Store(files, rows, {key: n for key, n in counts.items() if key[0] not in _OF_THE_CONTROL_PLANE})


def differences(disturbed: _Store, undisturbed: _Store) -> list[str]:
    """Return the differences between two stores."""
    found = []
    for path in sorted(disturbed.files.keys() | undisturbed.files.keys()):
        ours, theirs = disturbed.files.get(path), undisturbed.files.get(path)
        if ours != theirs:
            what = "is missing" if ours is None else "should not be there" if theirs is None else "differs"
            found.append(f"published file {path} {what}")
    for version, rows in disturbed.rows.items():
        doubled = [row for row, count in Counter(rows).items() if count > 1]
        found += [f"version {version} has row {row} more than once" for row in doubled]
        lost = set(undisturbed.rows.get(version, ())) - set(rows)
        found += [f"version {version} lacks row {row}" for row in sorted(lost)]
    for key in sorted(disturbed.counts.keys() | undisturbed.counts.keys()):
        ours_, theirs_ = disturbed.counts.get(key, 0), undisturbed.counts.get(key, 0)
        if ours_ != theirs_:
            found.append(f"{' '.join(key).strip()}: {ours_} records, {theirs_} undisturbed")
    return found


def _sandbox(real: bool, cache: Path | None) -> dict[str, object]:
    if not real:
        return {}
    own = {"runners": "1", "slots": "2", "cache_dir": str(cache)}
    return {"sandbox_command": (), "sandbox": own}


def run(size: Size, seed: int, folder: Path, database: str = SQLITE, cache: Path | None = None) -> Found:
    """Run the series and return the result.

    Args:
        size: How much.
        seed: Of the faults.
        folder: Data and logs.
        database: "sqlite" or "postgresql".
        cache: Of the real sandbox; None: the one that answers at once.
    """
    found = Found()
    print(f"{size.faults} faults, chaos seed {seed}, {database}", flush=True)
    sandbox = _sandbox(cache is not None, cache)
    ports = {name: free_port() for name in _BEHIND_PROXIES}
    with contextlib.ExitStack() as stack:
        proxies = {name: stack.enter_context(Proxy(port)) for name, port in ports.items()}
        small = stack.enter_context(disk.small(folder / "disturbed" / "data", _DISK_BYTES))
        opened = stack.enter_context(empty_database(database))
        scene = Scene(
            folder / "disturbed",
            opened.url,
            inference={"simulated_speed": str(size.speed), "slots": "16"},
            coordinator={"lease_seconds": "5"},
            ports=ports,
            between={name: proxy.address for name, proxy in proxies.items()},
            **sandbox,  # type: ignore[arg-type]
        )
        with scene.up():
            with scene.stubs() as (_, dataset):
                store_seeds(dataset, size.seeds)
            _Series(faults.Stage(scene, proxies, small, size.seconds, opened.server), size, seed, found).play()
            scene.services["dataset"].wait_ready()
            disturbed = _look(scene)
    with empty_database(database) as other:
        calm = Scene(folder / "undisturbed", other.url, **sandbox)  # type: ignore[arg-type]
        with calm.up(), calm.stubs() as (coordinator, dataset):
            store_seeds(dataset, size.seeds)
            for number in range(len(found.runs)):
                created = coordinator.CreateRun(
                    api.CreateRunRequest(config=run_of("nano", pipeline_of(coordinator), number)), timeout=60
                ).run
                status = follow(coordinator, created.id, _POLL_SECONDS, size.settle_seconds)
                if status.version != found.runs[number]:
                    found.wrong.append(f"run {number}: {found.runs[number] or 'no version'}, not {status.version}")
            undisturbed = _look(calm)
    found.rows = sum(map(len, undisturbed.rows.values()))
    if not found.rows:
        found.wrong.append("the undisturbed runs published no row: nothing was compared")
    found.wrong += differences(disturbed, undisturbed)
    return found


def report(found: Found) -> None:
    """Print the result."""
    kinds = Counter(" ".join(name.split()[:3]) for name in found.injected)
    print(f"\nfaults: {len(found.injected)}: " + "; ".join(f"{name} ... {n}" for name, n in kinds.most_common()))
    print(f"ended by themselves: {dict(found.revived) or 'none'}")
    print(f"runs: {len(found.runs)}; rows compared: {found.rows}")
    for line in found.wrong:
        print(f"WRONG: {line}")


def main() -> int:
    """Run the test and return whether everything was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=Size.faults)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--seconds", type=float, default=Size.seconds, help="how long a fault lasts at most")
    parser.add_argument("--seeds", type=int, default=Size.seeds, help="of each run")
    parser.add_argument("--speed", type=float, default=Size.speed, help="of the engine")
    parser.add_argument("--database", choices=DATABASES, default=SQLITE)
    parser.add_argument("--sandbox", choices=("instant", "real"), default="instant")
    parser.add_argument("--keep", type=Path, help="a folder for data and logs, kept; default: a temporary one")
    given = parser.parse_args()
    gateways.end_by_signals()
    size = Size(given.faults, given.seconds, given.seeds, given.speed)
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="codealign-chaos-")))
        cache = stack.enter_context(gateways.own_cache()) if given.sandbox == "real" else None
        found = run(size, given.seed, folder, given.database, cache)
    report(found)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
