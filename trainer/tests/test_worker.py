"""Training in several pods: each pod is a process here, with an address of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codealign.common.model_identity import revision
from codealign.trainer.cluster import worker
from codealign.trainer.sft.job import Job
from codealign.trainer.sft.progress import Outcome, read_outcome, write_outcome
from tests.ports import free_port
from trainer.tests.conftest import Process, events
from trainer.tests.tiny import make_job

NANO = Path(__file__).parents[1] / "nano/src/codealign/nano/data/model"
Pod = Callable[[Job, int, int], Process]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def pod(port: int, tmp_path: Path) -> Iterator[Pod]:
    """Start a pod of a job: (job, its index, number of pods)."""
    running: list[Process] = []

    def begin(job: Job, index: int, pods: int) -> Process:
        job.output.mkdir(parents=True, exist_ok=True)
        path = job.output / "job.json"
        path.write_text(job.model_dump_json())
        variables = {
            "JOB_COMPLETION_INDEX": str(index),
            "CODEALIGN_WORKER_PODS": str(pods),
            "CODEALIGN_WORKER_FIRST_POD": "127.0.0.1",
            "CODEALIGN_WORKER_PORT": str(port),
            "PYTHONFAULTHANDLER": "1",
        }
        with (job.output / f"pod-{index}.txt").open("ab") as log:
            command = [sys.executable, "-m", "codealign.trainer.cluster.worker", str(path)]
            running.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **variables}))
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def said(job: Job) -> str:
    return "".join(path.read_text()[-20_000:] for path in sorted(job.output.glob("pod-*.txt")))


def until(condition: Callable[[], bool], job: Job, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said(job)
        time.sleep(0.02)


def ended(job: Job, pods: list[Process], seconds: float) -> list[int]:
    """Return the pods' exit statuses; if one hangs, every process first dumps its stack."""
    try:
        return [process.wait(seconds) for process in pods]
    except subprocess.TimeoutExpired:
        for pid in {below for process in pods for below in descendants(process.pid)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)
        time.sleep(2)
        pytest.fail(f"the pods do not end within {seconds} seconds\n{said(job)}")


def descendants(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    pairs = [line.split() for line in listed.splitlines()]
    parents = {int(child): int(parent) for child, parent in pairs}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pid: int) -> bool:
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(stat.strip()) and not stat.startswith("Z")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_in_two_pods_of_which_one_is_killed_gives_what_an_undisturbed_one_does(
    dataset_folder: Path, tmp_path: Path, pod: Pod
) -> None:
    revisions = []
    for name in ("undisturbed", "killed"):
        changes = {"workers": 2, "micro_batch_size": 1, "max_steps": 8, "max_restarts": 0, "checkpoint_steps": 2}
        job = make_job(NANO, dataset_folder, tmp_path / name, **changes)
        pods = [pod(job, index, 2) for index in (1, 0)]
        if name == "killed":
            until(lambda job=job: len(events(job, "step")) >= 4, job)  # type: ignore[misc]
            below = descendants(pods[0].pid)
            pods[0].kill()  # like a lost node
            assert pods[1].wait(60) == worker.LOST, said(job)
            until(lambda below=below: not any(alive(pid) for pid in below), job, 20)  # type: ignore[misc]
            assert read_outcome(job.outcome_file) is None
            pods = [pod(job, index, 2) for index in (1, 0)]
        assert ended(job, pods, 200) == [0, 0], said(job)
        outcome = read_outcome(job.outcome_file)
        assert outcome is not None
        assert (outcome.state, outcome.steps) == ("succeeded", 8)
        starts = [event["resumed_step"] for event in events(job, "started")]
        assert starts == [0] if name == "undisturbed" else (len(starts) == 2 and starts[1] in (2, 4, 6))
        revisions.append(revision(job.result, tmp_path / "digests"))
    assert revisions[0] == revisions[1]


@pytest.mark.slow
def test_a_program_that_cannot_go_on_ends_every_pod_with_42_and_for_good(
    model_folder: Path, dataset_folder: Path, tmp_path: Path, pod: Pod
) -> None:
    job = make_job(model_folder, dataset_folder, tmp_path / "nan", workers=2, micro_batch_size=1, learning_rate=1e30)
    pods = [pod(job, index, 2) for index in (0, 1)]
    assert worker.CANNOT_GO_ON in [process.wait(120) for process in pods], said(job)
    assert pod(job, 1, 2).wait(60) == worker.CANNOT_GO_ON  # restarted by the Job: it does not retry
    assert len(events(job, "started")) == 1
    assert "loss or gradient is not finite" in said(job)


@pytest.mark.slow
def test_a_pod_that_is_told_to_stop_ends_at_once_with_all_it_started(
    model_folder: Path, dataset_folder: Path, tmp_path: Path, pod: Pod
) -> None:
    job = make_job(model_folder, dataset_folder, tmp_path / "job", epochs=1000, workers=2, micro_batch_size=1)
    process = pod(job, 0, 1)
    until(lambda: len(events(job, "step")) >= 2, job)
    below = descendants(process.pid)
    assert len(below) >= 3
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == worker.TERMINATED
    assert time.monotonic() - began < 5
    until(lambda: not any(alive(pid) for pid in below), job, 10)
    assert read_outcome(job.outcome_file) is None


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replace the training program with a few lines of Python; `job` is the job file's content."""

    def replace(code: str) -> None:
        script = tmp_path / "program.sh"
        head = "import json, os, sys, time; job = json.load(open(sys.argv[-1]))\n"
        head += "node = os.environ.get('CODEALIGN_TRAINER_NODES', '1,0,').split(',')[1]\n"
        (tmp_path / "program.py").write_text(head + code)
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/program.py "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return replace


def small(tmp_path: Path) -> tuple[Job, Path]:
    job = make_job(tmp_path, tmp_path, tmp_path / "out", workers=2)
    job.output.mkdir()
    path = job.output / "job.json"
    path.write_text(job.model_dump_json())
    return job, path


OUTCOME = "open(job['output'] + '/outcome.json', 'w').write(json.dumps({'state': %r, 'message': 'why'}))\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (OUTCOME % "succeeded", worker.SUCCEEDED),
        (OUTCOME % "failed" + "sys.exit(1)", worker.CANNOT_GO_ON),
        ("", worker.LOST),
        ("sys.exit(3)", worker.LOST),
        ("os.kill(os.getpid(), 9)", worker.LOST),
    ],
)
async def test_the_outcome_decides_and_not_the_programs_status(
    tmp_path: Path, program: Callable[[str], None], code: str, status: int
) -> None:
    program(code)
    _, path = small(tmp_path)
    assert await worker.run(path, worker.Place()) == status


async def test_an_outcome_that_is_there_is_not_tried_again(tmp_path: Path, program: Callable[[str], None]) -> None:
    program("open(job['output'] + '/ran', 'w')")
    job, path = small(tmp_path)
    for state, status in (("succeeded", worker.SUCCEEDED), ("failed", worker.CANNOT_GO_ON)):
        write_outcome(job.outcome_file, Outcome(state))  # type: ignore[arg-type]
        for index in (0, 1):
            assert await worker.run(path, worker.Place(index, 2)) == status
    assert not (job.output / "ran").exists()


async def test_a_pod_that_has_done_its_part_waits_for_the_first_ones_result(
    tmp_path: Path, program: Callable[[str], None], port: int
) -> None:
    program("if node == '0':\n    time.sleep(1.5)\n    " + OUTCOME % "succeeded")
    _, path = small(tmp_path)
    pods = [worker.run(path, worker.Place(index, 2, port=port)) for index in (0, 1)]
    assert await asyncio.gather(*pods) == [worker.SUCCEEDED, worker.SUCCEEDED]


async def test_a_pod_does_not_end_well_when_the_first_one_is_lost_before_its_result(
    tmp_path: Path, program: Callable[[str], None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_OUTCOME_SECONDS", 0.5)
    program("if node == '0':\n    time.sleep(1)\n    os.kill(os.getpid(), 9)")
    _, path = small(tmp_path)
    pods = [worker.run(path, worker.Place(index, 2, port=port)) for index in (0, 1)]
    assert await asyncio.gather(*pods) == [worker.LOST, worker.LOST]


async def test_a_pod_that_comes_anew_while_the_others_run_ends_them(
    tmp_path: Path, program: Callable[[str], None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_OUTCOME_SECONDS", 0.5)
    program("open(job['output'] + '/ran-' + node, 'w'); time.sleep(60)")
    job, path = small(tmp_path)
    pods = [asyncio.create_task(worker.run(path, worker.Place(index, 2, port=port))) for index in (0, 1)]
    while not (job.output / "ran-0").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.02)
    anew = asyncio.create_task(worker.run(path, worker.Place(1, 2, port=port)))
    assert await asyncio.wait_for(asyncio.gather(*pods), 30) == [worker.LOST, worker.LOST]
    assert not anew.done()  # it waits for the next pod 0
    again = asyncio.create_task(worker.run(path, worker.Place(0, 2, port=port)))
    write_outcome(job.outcome_file, Outcome("succeeded"))
    assert await asyncio.wait_for(anew, 30) == worker.SUCCEEDED
    again.cancel()


async def test_strangers_do_not_count_as_pods(tmp_path: Path, program: Callable[[str], None], port: int) -> None:
    program("if node == '0':\n    " + OUTCOME % "succeeded")
    job, path = small(tmp_path)
    first = asyncio.create_task(worker.run(path, worker.Place(0, 2, port=port)))
    for hello in (b"", b"GET / HTTP/1.1\n", b"another 1\n", f"{job.training_id} 7\n".encode()):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0.05)
        writer.write(hello)
        await asyncio.sleep(0.05)
        writer.close()
    assert not first.done()
    assert await worker.run(path, worker.Place(1, 2, port=port)) == worker.SUCCEEDED
    assert await first == worker.SUCCEEDED


def test_a_pods_place_is_checked() -> None:
    given = {"JOB_COMPLETION_INDEX": "1", "CODEALIGN_WORKER_PODS": "2", "CODEALIGN_WORKER_FIRST_POD": "a-0.a"}
    assert worker.place_of(given) == worker.Place(1, 2, "a-0.a")
    assert worker.place_of({}) == worker.Place()
    for wrong, named in (
        ({"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX"),
        ({**given, "JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETION_INDEX"),
        ({**given, "CODEALIGN_WORKER_FIRST_POD": ""}, "CODEALIGN_WORKER_FIRST_POD"),
    ):
        with pytest.raises(ValueError, match=named):
            worker.place_of(wrong)


def test_the_interface_is_that_of_the_address() -> None:
    assert worker._interface("127.0.0.1") == "lo"
    assert worker._interface("192.0.2.1") is None


def test_what_the_program_is_given_of_the_pods_environment(tmp_path: Path) -> None:
    assert json.loads(json.dumps(worker._nodes(worker.Place(1, 2, "a-0.a"), 4321, "192.0.2.1"))) == {
        "CODEALIGN_TRAINER_NODES": "2,1,a-0.a:4321"
    }
