"""The whole product on recorded completions of a real model: real services, real store, real gVisor."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from codealign.common.traces import trace_id
from tests.collector import Collector, Seen, collecting, environment
from tests.e2e.commands import codealign, command
from tests.e2e.recorded import Seeds

SERVICES = ("dataset", "sandbox", "inference", "coordinator")
NAME = ("--name", "recorded")
pytestmark = pytest.mark.gvisor


def versions(home: Path) -> dict[str, dict[str, bytes]]:
    """Return every published file's bytes, by version and path."""
    folders = [manifest.parent for manifest in home.rglob("manifest.json")]
    return {
        folder.name: {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in folders
    }


def database(home: Path) -> Path:
    return next(iter(home.rglob("records.db")), home / "none")


def query(home: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.suppress(sqlite3.OperationalError):
        with contextlib.closing(sqlite3.connect(f"file:{database(home)}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
    return []


def progress(home: Path) -> int:
    """Return the number of records of a run: completions, concept sets, instructions, responses, and so on."""
    rows = query(home, "select count(*) from records where kind in (2, 3, 4, 5, 6, 10, 16)")
    return int(str(rows[0][0])) if rows else 0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recorded_seeds: Seeds, collector: Collector) -> Path:
    home = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(collector.endpoint).items():
            patch.setenv(name, value)
        codealign(home, *recorded_seeds.replay(*NAME))
    return home


def test_a_run_ends_with_rows_that_the_sandbox_proved(finished: Path) -> None:
    (version,) = versions(finished).values()
    manifest = json.loads(version["manifest.json"])
    assert manifest["rows"] > 0
    import datasets

    folder = next(iter(finished.rglob("manifest.json"))).parent
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(finished / "hub"))
    assert loaded.num_rows == manifest["rows"]
    assert all(row["instruction"] and "```" in row["response"] and "assert" in row["tests"] for row in loaded)


def test_a_row_and_a_dropped_seed_are_explained(finished: Path) -> None:
    (row,) = query(finished, "select id from records where kind = 6 order by id limit 1")
    told = codealign(finished, "data", "lineage", str(row[0]))
    assert re.search(r"\.py:\d+", told), "the seed's file and line"
    assert "<concepts>" in told
    assert "<task>" in told
    assert "PASSED" in told
    assert "is the lowest that passed" in told
    (seed,) = query(
        finished,
        "select p.parent_id from records r join record_parents p on p.child_id = r.id "
        "where r.kind = 11 and r.label = 'seed.no-return' order by r.id limit 1",
    )
    assert "no return statement with a value" in codealign(finished, "data", "lineage", str(seed[0]))


def test_a_row_is_followed_from_its_seed_through_every_service(finished: Path, collector: Collector) -> None:
    (row, run) = query(
        finished,
        "select r.id, m.collection from records r join collection_members m on m.record_id = r.id where r.kind = 6",
    )[0]
    ((seed,),) = query(
        finished,
        "with recursive line(id) as (values ('" + str(row) + "') union select parent_id from record_parents join line "
        "on child_id = id) select id from records join line using (id) where kind = 1",
    )
    trace = trace_id([str(run), str(seed)])
    spans = [span for span in collector.spans if span.trace == trace]
    services = {span.service.removeprefix("codealign-") for span in spans}
    assert services | {"dataset"} == {"coordinator", "inference", "dataset", "sandbox", "runner"}
    # A call of the dataset service serves many items: it is in the trace of one of them, and linked to the others'.
    everything = {span.id: span for span in collector.spans}
    batches = [span for span in collector.spans if span.name == "batch" and trace in (span.trace, *span.links)]
    served = {span.parent for span in collector.spans if span.service == "codealign-dataset"}
    called = {everything[call].parent for call in served if call in everything}
    assert {batch.id for batch in batches} & called
    (root,) = [span for span in spans if not span.parent]
    assert root.attributes["codealign.record"] == seed
    ids = {span.id: span for span in spans}
    (appended,) = [span for span in spans if span.name == "append" and span.attributes["codealign.record"] == row]
    (passed, *_) = [span for span in spans if span.attributes.get("codealign.verdict") == "PASSED"]

    def path(span: Seen) -> list[str]:
        return [*path(ids[span.parent]), span.name.rpartition("/")[2]] if span.parent else [span.name]

    assert path(appended) == ["item", "selection", "append"]
    stages = ["item", "concepts", "instructions", "responses", "execution"]
    assert path(passed) == [*stages, "Execute", "Execute", "execute"]
    assert not any(span.failed for span in spans)


def test_the_same_command_again_does_nothing_twice(finished: Path, recorded_seeds: Seeds) -> None:
    before = query(finished, "select id, content_hash from records order by id")
    codealign(finished, *recorded_seeds.replay(*NAME))
    assert query(finished, "select id, content_hash from records order by id") == before


def kill(home: Path, service: str) -> bool:
    """Send SIGKILL to a service; return False if it is not running."""
    with contextlib.suppress(OSError, ValueError):
        pid = json.loads((home / "run" / f"{service}.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("case", range(2))
def test_a_run_whose_services_are_killed_publishes_the_same_bytes(
    finished: Path,
    tmp_path: Path,
    case: int,
    services_up: Callable[..., AbstractContextManager[None]],
    recorded_seeds: Seeds,
) -> None:
    """Over both cases, each service is killed at five different moments, one service at a time."""
    total = progress(finished)
    again = command(tmp_path, *recorded_seeds.run(*NAME))
    due = [((2 * turn + case + 1) / 21, SERVICES[(turn + 2 * case) % 4]) for turn in range(10)]
    killed = []
    with services_up(tmp_path):
        run = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 200
        while due and run.poll() is None and time.monotonic() < deadline:
            share, service = due[0]
            if progress(tmp_path) >= total * share and kill(tmp_path, service):
                killed.append(service)
                due.pop(0)
            time.sleep(0.02)
        _, errors = run.communicate(timeout=200)
        for _ in range(5):
            # The watching command may have failed on an unreachable service; repeat it to continue.
            if run.returncode == 0:
                break
            run = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            _, errors = run.communicate(timeout=200)
        assert run.returncode == 0, errors.decode()[-2000:]
    assert len(killed) >= 5, f"the run was over too soon: only {killed} were killed"
    assert versions(tmp_path) == versions(finished)
    ids = "select id from records where kind in (2, 3, 4, 5, 6, 10, 16) order by id"
    assert query(tmp_path, ids) == query(finished, ids)


def test_a_recording_without_the_prompt_says_which(tmp_path: Path, recorded_seeds: Seeds) -> None:
    arguments = recorded_seeds.replay(*NAME, "--seed", "1")
    ended = subprocess.run(command(tmp_path, *arguments), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "does not have this prompt" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
