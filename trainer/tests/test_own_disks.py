"""Training in pods that share no disk: files are transferred by URL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codealign.api.training.v1 import training_pb2 as api
from codealign.common.clients import Addresses, Clients
from codealign.common.errors import ConfigurationError, FailedPrecondition, NotFound, Unavailable
from codealign.common.model_identity import revision
from codealign.inference.sources import local_source
from codealign.trainer.cluster import mirror, pod_files, worker
from codealign.trainer.cluster.mirror import MirrorError, Remote, fetch_checkpoint, newest_checkpoint
from codealign.trainer.cluster.pod_files import OwnDisk
from codealign.trainer.cluster.sending import Sender
from codealign.trainer.sft.checkpoints import CheckpointFolder
from codealign.trainer.sft.job import Job
from codealign.trainer.sft.progress import Outcome, outcome_json, outcome_of, write_outcome
from codealign.trainer.sft.rows import read_rows
from codealign.trainer.sources import fetch_model, find_data, find_model
from tests.ports import free_port
from trainer.tests.conftest import Process
from trainer.tests.storage import served
from trainer.tests.test_worker import alive, descendants
from trainer.tests.tiny import make_job

NANO = Path(__file__).parents[1] / "nano/src/codealign/nano/data/model"


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    yield from served(request.param, tmp_path, monkeypatch)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """A training's folder."""
    return Remote((tmp_path / "artifacts").as_uri()).below("trainings/t")


class Pods:
    """Pods of a training as processes, each start with its own scratch folders."""

    def __init__(self, remote: Remote, folder: Path) -> None:
        self.remote, self.folder = remote, folder
        self.running: list[Process] = []
        self.port = free_port()

    def start(self, start: str) -> list[Process]:
        """Start two pods."""
        return [self._one(index, self.folder / f"{start}-{index}") for index in (1, 0)]

    def _one(self, index: int, scratch: Path) -> Process:
        variables = {
            "JOB_COMPLETION_INDEX": str(index),
            "CODEALIGN_WORKER_PODS": "2",
            "CODEALIGN_WORKER_FIRST_POD": "127.0.0.1",
            "CODEALIGN_WORKER_PORT": str(self.port),
            "CODEALIGN_WORKER_ARTIFACTS_URL": self.remote.url,
            "CODEALIGN_WORKER_CACHE_DIR": str(scratch / "cache"),
        }
        with (self.folder / f"{scratch.name}.txt").open("ab") as log:
            command = [sys.executable, "-m", "codealign.trainer.cluster.worker", str(scratch / "data" / "job.json")]
            self.running.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **variables}))
        return self.running[-1]

    def said(self) -> str:
        """Return the ends of the pods' logs."""
        return "".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.txt")))

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Wait for the pods."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the checkpoints that the program has written and the pods have uploaded."""
        lines = (self.remote.read(mirror.PROGRESS) or b"").splitlines()
        return [event for line in lines if (event := json.loads(line))["event"] == kind]


@pytest.fixture
def pods(url: str, tmp_path: Path) -> Iterator[Pods]:
    (tmp_path / "pods").mkdir()
    made = Pods(Remote(url).below("trainings/t"), tmp_path / "pods")
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
        process.wait()


def send_folder(url: str, folder: Path, name: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            Remote(url).send(file, f"{name}/{file.relative_to(folder).as_posix()}")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("url", "sharding"), [("file", "fsdp"), ("s3", "ddp")], indirect=["url"])
def test_a_pod_is_lost_and_both_go_on_elsewhere_from_the_checkpoint(
    pods: Pods, dataset_folder: Path, tmp_path: Path, sharding: str
) -> None:
    root = pods.remote.url.removesuffix("/trainings/t")
    send_folder(root, dataset_folder, "data")
    send_folder(root, NANO, "base")
    changes = {"workers": 2, "sharding": sharding, "micro_batch_size": 1, "max_steps": 12, "checkpoint_steps": 2}
    job = make_job(Path("/nowhere"), tmp_path, Path("/elsewhere/t"), max_restarts=0, **changes).model_copy(
        update={"dataset": f"{root}/data", "model_source": f"{root}/base", "model_revision": revision(NANO, tmp_path)}
    )
    pods.remote.write(mirror.JOB, job.model_dump_json().encode())
    first = pods.start("first")
    pods.until(lambda: newest_checkpoint(pods.remote) is not None)
    below = descendants(first[0].pid)
    first[0].kill()  # like a lost node
    assert first[1].wait(60) == worker.LOST, pods.said()
    pods.until(lambda: not any(alive(pid) for pid in below), 20)
    kept = newest_checkpoint(pods.remote)
    assert kept is not None
    assert {name for name in kept.files if name.startswith("rng_state")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert pods.remote.read(mirror.OUTCOME) is None
    second = pods.start("second")
    assert [process.wait(200) for process in second] == [0, 0], pods.said()
    outcome = outcome_of(pods.remote.read(mirror.OUTCOME) or b"")
    assert outcome is not None
    assert (outcome.state, outcome.steps) == ("succeeded", 12)
    assert [event["resumed_step"] for event in pods.events("started")] == [0, kept.step]
    assert pods.events("step")[-1]["step"] == 12
    assert not pods.remote.folders(mirror.CHECKPOINTS)
    found = local_source(f"{pods.remote.url}/model", tmp_path / "inference")  # like LoadModel
    assert revision(found, tmp_path / "digests") == outcome.revision
    assert (found / "config.json").is_file()


@pytest.mark.slow
def test_a_training_that_cannot_go_on_says_so_at_the_url(
    pods: Pods, model_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    changes = {"workers": 2, "micro_batch_size": 1, "learning_rate": 1e30}
    job = make_job(model_folder, dataset_folder, Path("/elsewhere/t"), **changes)
    pods.remote.write(mirror.JOB, job.model_dump_json().encode())
    assert worker.CANNOT_GO_ON in [process.wait(120) for process in pods.start("first")], pods.said()
    outcome = outcome_of(pods.remote.read(mirror.OUTCOME) or b"")
    assert outcome is not None
    assert outcome.state == "failed"
    assert "loss or gradient is not finite" in outcome.message


def own(remote: Remote, tmp_path: Path, job: Job, index: int = 0, pods: int = 1) -> OwnDisk:
    remote.write(mirror.JOB, job.model_dump_json().encode())
    return OwnDisk(tmp_path / f"scratch-{index}" / "job.json", remote.url, tmp_path / "cache", index=index, pods=pods)


def sizes_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def checkpoint(folder: Path, step: int, content: str = "weights") -> CheckpointFolder:
    made = CheckpointFolder(folder, "t" * 32)
    written = made.partial / f"checkpoint-{step}"
    (written / "optimizer").mkdir(parents=True)
    (written / "optimizer" / "state").write_text(content)
    (written / "weights").write_text(content)
    made.commit(step, "a training")
    return made


def send(remote: Remote, job: Job, *, start: str = "ab", index: int = 0, pods: int = 1) -> None:
    """Return one pod's part of the newest checkpoint."""
    job.output.mkdir(parents=True, exist_ok=True)
    sender = Sender(remote, job, index, pods, start, job.output / "sent")
    sender._last = 0
    sender._send_checkpoint()


async def test_a_cut_upload_is_not_resumed_from(
    remote: Remote, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(model_folder, tmp_path, tmp_path / "one")
    checkpoint(job.checkpoints, 3)
    send(remote, job)
    kept = newest_checkpoint(remote)
    assert kept is not None
    assert kept.step == 3
    checkpoint(job.checkpoints, 6, "more weights")
    names: list[str] = []
    for cut in range(3):  # before each of the two files, and before the label

        def until_cut(self: Remote, *given: Any, cut: int = cut, of: Any = None) -> None:
            names.append(str(given[-1]))
            if len(names) > cut:
                raise MirrorError("cut")
            of(self, *given)

        real_send, real_write = Remote.send, Remote.write
        names.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Remote, "send", lambda self, *given, of=real_send: until_cut(self, *given, of=of))
            patch.setattr(Remote, "write", lambda self, *given, of=real_write: until_cut(self, *given, of=of))
            with pytest.raises(MirrorError):
                send(remote, job, start="cd")
        assert newest_checkpoint(remote) == kept
    send(remote, job, start="ef")
    whole = newest_checkpoint(remote)
    assert whole is not None
    assert (whole.step, whole.name) == (6, "checkpoint-6-ef")
    assert remote.folders(mirror.CHECKPOINTS) == ["checkpoint-6-ef"]
    remote.write(f"checkpoints/{whole.name}/weights", b"mor")  # damaged checkpoints are not used either
    assert newest_checkpoint(remote) is None
    remote.write(f"checkpoints/{whole.name}/weights", b"more weights")
    files = own(remote, tmp_path, job)
    await files.begin()
    assert await files.fetch() is None
    assert CheckpointFolder(files.job.checkpoints, job.training_id).newest() == 6
    assert (files.job.checkpoints / "checkpoint-6/optimizer/state").read_text() == "more weights"


def test_a_checkpoint_is_there_when_every_pods_part_is(remote: Remote, tmp_path: Path) -> None:
    jobs = [make_job(tmp_path, tmp_path, tmp_path / str(index)) for index in range(2)]
    checkpoint(jobs[0].checkpoints, 3)
    for name in ("optimizer", "weights"):  # written by the other pod's workers
        (jobs[1].checkpoints / "partial" / "checkpoint-3").mkdir(parents=True, exist_ok=True)
        (jobs[1].checkpoints / "partial" / "checkpoint-3" / f"{name}-1").write_text("of 1")
    CheckpointFolder(jobs[1].checkpoints, "t" * 32).commit(3, "a training")
    send(remote, jobs[1], start="01", index=1, pods=2)  # from an earlier start that was lost then
    leading = threading.Thread(target=send, args=(remote, jobs[0]), kwargs={"start": "02", "pods": 2}, daemon=True)
    leading.start()
    time.sleep(1.0)
    assert newest_checkpoint(remote) is None
    assert leading.is_alive()
    send(remote, jobs[1], start="02", index=1, pods=2)
    leading.join(10)
    kept = newest_checkpoint(remote)
    assert kept is not None
    assert kept.files.keys() == {"optimizer/state", "weights", "optimizer-1", "weights-1"}
    assert remote.folders(mirror.CHECKPOINTS) == ["checkpoint-3-02"]
    fetch_checkpoint(remote, kept, tmp_path / "back" / "checkpoint-3")
    assert CheckpointFolder(tmp_path / "back", "t" * 32).newest() == 3
    assert (jobs[0].output / "sent").read_text() == "3"


def test_a_training_that_started_over_replaces_the_later_checkpoint(remote: Remote, tmp_path: Path) -> None:
    job = make_job(tmp_path, tmp_path, tmp_path / "one")
    checkpoint(job.checkpoints, 30)
    send(remote, job, start="01")
    sender = Sender(remote, job, 0, 1, "02", job.output / "sent")  # the program cannot use the downloaded one
    checkpoint(job.checkpoints, 3, "other weights")
    sender._send_checkpoint()
    kept = newest_checkpoint(remote)
    assert kept is not None
    assert (kept.name, (job.output / "sent").read_text()) == ("checkpoint-3-02", "3")
    assert remote.folders(mirror.CHECKPOINTS) == ["checkpoint-3-02"]


def test_the_program_takes_no_checkpoint_while_one_is_being_sent(tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    folder = CheckpointFolder(tmp_path / "checkpoints", "t" * 32, sent)
    assert folder.unsent() == 0
    folder._committed = 4
    assert (folder.unsent(), folder.sent()) == (4, 0)
    sent.write_text("9")  # of the checkpoint that the training could not use
    assert folder.unsent() == 4
    sent.write_text("2")
    assert folder.unsent() == 4
    sent.write_text("4")
    assert folder.unsent() == 0
    assert CheckpointFolder(tmp_path / "checkpoints", "t" * 32).unsent() == 0


async def test_the_outcome_comes_last_and_an_upload_that_fails_is_tried_again(
    remote: Remote, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codealign.trainer.cluster.pod_files.time.sleep", lambda _seconds: None)
    files = own(remote, tmp_path, make_job(model_folder, tmp_path, Path("/elsewhere")))
    await files.begin()
    assert await files.fetch() is None
    remote.write("model/left.safetensors", b"of an earlier start")
    shutil.copytree(model_folder, files.job.result)
    files.job.progress_file.write_text('{"event": "note", "text": "said"}\n')
    write_outcome(files.job.outcome_file, Outcome("succeeded", final_loss=1.5, steps=4))
    done: list[str] = []

    def failing(of: Any) -> Any:
        failed: set[str] = set()

        def call(self: Remote, *given: Any) -> None:
            name = str(given[-1] if isinstance(given[0], Path) else given[0])
            if name not in failed:
                failed.add(name)
                raise MirrorError(f"{name}: the storage is away")
            of(self, *given)
            done.append(name)

        return call

    monkeypatch.setattr(Remote, "send", failing(Remote.send))
    monkeypatch.setattr(Remote, "write", failing(Remote.write))
    outcome = await files.settle()
    assert outcome is not None
    assert outcome.revision == revision(model_folder, tmp_path / "digests")
    assert done[-1] == mirror.OUTCOME
    assert mirror.PROGRESS in done
    assert remote.sizes("model") == sizes_of(model_folder)
    assert outcome_of(remote.read(mirror.OUTCOME) or b"") == outcome


async def test_a_model_and_a_dataset_at_a_url_are_found(
    url: str, tmp_path: Path, model_folder: Path, dataset_folder: Path
) -> None:
    send_folder(url, model_folder, "tuned")
    send_folder(url, dataset_folder, "v-1")
    spec = api.TrainingSpec(model=f"{url}/tuned")
    found = await find_model(spec, tmp_path / "cache")
    assert (found.revision, found.name) == (revision(model_folder, tmp_path / "digests"), "tuned")
    assert found.source == ("" if url.startswith("file:") else f"{url}/tuned")
    async with Clients(Addresses()) as clients:
        assert (await find_data(f"{url}/v-1", clients)).rows == 22
    assert len(read_rows(f"{url}/v-1")) == 22


async def test_another_pods_failure_does_not_take_a_successs_place(
    remote: Remote, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_files, "_FIRST_POD_SECONDS", 0.1)
    job = make_job(model_folder, tmp_path, Path("/elsewhere"))
    files = own(remote, tmp_path, job, index=1, pods=2)
    await files.begin()
    assert await files.outcome() is None
    write_outcome(files.job.outcome_file, Outcome("failed", "no room"))
    assert await files.outcome() is None  # its own outcome does not count for others yet
    remote.write(mirror.OUTCOME, outcome_json(Outcome("succeeded", steps=4)))
    await files.settle()
    assert (await files.outcome()) == Outcome("succeeded", steps=4)
    remote.remove(mirror.OUTCOME)
    await files.settle()
    assert (await files.outcome()) == Outcome("failed", "no room")


async def test_a_model_that_the_pod_does_not_have_is_fetched_or_named(
    remote: Remote, tmp_path: Path, model_folder: Path
) -> None:
    given = make_job(Path("/nowhere/tuned"), tmp_path, Path("/elsewhere"))
    files = own(remote, tmp_path, given)
    await files.begin()
    failure = await files.fetch()
    assert failure is not None
    assert "/nowhere/tuned" in failure.message
    assert "trainer.workers.extraVolumes" in failure.message
    assert await files.outcome() == failure
    for name in sizes_of(model_folder):
        remote.send(model_folder / name, f"model/{name}")
    source = {"model_source": f"{remote.url}/model"}
    found = revision(model_folder, tmp_path / "digests")
    fetched = fetch_model(given.model_copy(update={**source, "model_revision": found}), tmp_path / "cache")
    assert revision(fetched, tmp_path / "digests") == found
    with pytest.raises(FailedPrecondition, match="was overwritten"):
        fetch_model(given.model_copy(update={**source, "model_revision": "1" * 64}), tmp_path / "cache")
    with pytest.raises(NotFound, match="the folder does not exist"):
        fetch_model(given.model_copy(update={"model_source": f"{remote.url}/other"}), tmp_path / "cache")


def test_a_hub_model_is_fetched_at_the_commit_that_was_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def download(name: str, *, revision: str, **_: object) -> str:
        asked.append((name, revision))
        if revision == "f00":
            raise OSError("no way out")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    job = make_job(Path("/nowhere"), tmp_path, tmp_path)
    assert fetch_model(job.model_copy(update={"model_source": "hf://owner/name@abc"}), tmp_path) == tmp_path
    with pytest.raises(Unavailable):
        fetch_model(job.model_copy(update={"model_source": "hf://owner/name@f00"}), tmp_path)
    assert asked == [("owner/name", "abc"), ("owner/name", "f00")]


async def test_pods_with_different_checkpoints_are_no_pods_of_each_other(
    remote: Remote, tmp_path: Path, model_folder: Path
) -> None:
    job = make_job(model_folder, tmp_path, tmp_path / "out")
    early = own(remote, tmp_path, job, index=1, pods=2)
    await early.begin()
    await early.fetch()
    checkpoint(job.checkpoints, 3)
    send(remote, job)
    late = own(remote, tmp_path, job, index=0, pods=2)
    await late.begin()
    await late.fetch()
    assert early.name != late.name
    await early.fetch()  # as it does before a retry
    assert early.name == late.name
    assert CheckpointFolder(early.job.checkpoints, job.training_id).newest() == 3


def test_a_url_that_cannot_be_used_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="artifacts_url"):
        Remote("nonsense://bucket/folder")


async def test_a_storage_that_does_not_answer_ends_the_pod_to_be_started_anew(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_files, "_SETTLE_SECONDS", 0.001)
    files = own(remote, tmp_path, make_job(tmp_path, tmp_path, tmp_path))
    monkeypatch.setattr("codealign.trainer.cluster.pod_files.time.sleep", lambda _seconds: None)

    def away(*_: object) -> None:
        raise MirrorError("the storage is away")

    monkeypatch.setattr(Remote, "fetch", away)
    assert await worker.run(files.path, worker.Place(), files) == worker.LOST
