"""Reconciliation with training state at a URL, where the operator's own disk may be lost at any time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from codealign.common.errors import ConfigurationError
from codealign.common.settings import load
from codealign.trainer.cluster.mirror import MirroredLibrary, MirrorError, Remote
from codealign.trainer.cluster.resource import Object
from codealign.trainer.settings import TrainerSettings
from codealign.trainer.sft.progress import ProgressReader
from trainer.tests.test_reconcile import BAD, GOOD, World


@pytest.fixture
def spec(model_folder: Path, dataset_folder: Path) -> Object:
    return {"model": str(model_folder), "dataset": str(dataset_folder), "batchSize": 4, "workers": 2}


@pytest.fixture
def world(tmp_path: Path, spec: Object) -> World:
    return World(tmp_path, spec, url=True)


def variables(world: World) -> dict[str, str]:
    (job,) = world.cluster.of("jobs")
    return {each["name"]: each["value"] for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}


async def test_pods_are_told_the_url_and_the_record_has_the_results(world: World) -> None:
    await world.apply()
    await world.look()
    url = f"{world.settings.artifacts_url}/trainings/{world.status()['trainingId']}"
    given = variables(world)
    assert given["CODEALIGN_WORKER_ARTIFACTS_URL"] == url
    assert given["CODEALIGN_WORKER_CACHE_DIR"] == str(world.settings.cache_dir)
    await world.look(3)
    assert (world.status()["step"], world.status()["checkpointStep"], world.status()["loss"]) == (2, 2, 2.5)
    await world.until("Succeeded")
    assert world.status()["artifactUrl"] == f"{url}/model"
    body = world.store.records[world.status()["checkpointId"]].checkpoint
    assert (body.artifact_url, body.revision, body.steps) == (f"{url}/model", "5" * 64, 4)
    assert [point.step for point in body.losses] == [1, 2, 3, 4]
    local = world.settings.data_dir / "trainings" / world.status()["trainingId"]
    assert {path.name for path in local.iterdir()} == {"job.json", "state.json", "progress.jsonl", "outcome.json"}


async def test_an_operator_that_loses_its_disk_between_all_looks_changes_nothing(world: World) -> None:
    await world.apply()
    for _ in range(40):
        shutil.rmtree(world.settings.data_dir)
        world.restart()
        await world.look()
    assert world.status()["state"] == "Succeeded"
    assert len(world.jobs()) == 1


async def test_an_operator_that_is_killed_at_any_call_loses_nothing(tmp_path: Path, spec: Object) -> None:
    for number in range(1, 30):
        world = World(tmp_path / str(number), spec, url=True)
        await world.apply()
        world.cluster.calls, world.cluster.kill_at = 0, (number, bool(number % 2))
        await world.until("Succeeded")
        assert len(world.jobs()) == 1
        assert [resumed for _, resumed in world.kubelet.trained] == [0]
        assert len(world.store.records) == 2


async def test_a_failure_is_removed_there_before_a_higher_attempt_goes_on(tmp_path: Path, spec: Object) -> None:
    world = World(tmp_path, spec, BAD, url=True)
    await world.apply()
    await world.until("Failed")
    assert world.condition("Failed") == ("True", "TrainingFailed", BAD.message)
    world.kubelet.outcome = GOOD
    await world.change(attempt=2)
    await world.look(2)
    assert not (world.folder() / "outcome.json").exists()
    await world.until("Succeeded")
    assert [resumed for _, resumed in world.kubelet.trained] == [0, 4]


async def test_a_deletion_removes_what_is_there_and_keeps_a_result(world: World) -> None:
    await world.apply()
    await world.look(4)
    folder = world.folder()
    local = world.settings.data_dir / "trainings" / folder.name
    assert (folder / "checkpoints").is_dir()
    assert local.is_dir()
    await world.delete()
    assert not folder.exists()
    assert not local.exists()
    await world.apply()
    await world.until("Succeeded")
    await world.delete()
    assert (folder / "model/model.safetensors").is_file()
    assert not list((folder / "checkpoints").glob("*"))
    assert not local.exists()


async def test_a_storage_that_is_away_is_said_and_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.apply()
    await world.look(3)

    def away(*_: Any) -> None:
        raise MirrorError("s3://lab/a cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "marks", away)
        await world.operator.reconcile("one")
    assert world.condition("Running")[:2] == ("False", "StorageFails")
    assert "s3://lab/a cannot be reached" in world.status()["message"]
    assert world.told[-1].warning
    await world.until("Succeeded")
    assert len(world.jobs()) == 1


async def test_a_training_that_could_not_be_written_there_has_no_pods(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.apply()

    def away(*_: Any) -> None:
        raise MirrorError("s3://lab/a cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "write", away)
        await world.look(2)
    assert world.condition("Running")[1] == "StorageFails"
    assert not world.jobs()
    await world.until("Succeeded")


async def test_a_result_that_somebody_removed_there_is_made_again(world: World) -> None:
    await world.apply()
    await world.until("Succeeded")
    shutil.rmtree(world.folder() / "model")
    await world.change(attempt=2)
    await world.until("Running")
    await world.until("Succeeded")
    assert (world.folder() / "model/config.json").is_file()


def test_files_are_fetched_when_they_have_changed_and_dropped_when_they_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = MirroredLibrary(tmp_path / "data", (tmp_path / "artifacts").as_uri())
    remote = Remote(library.url("t"))
    fetched: list[str] = []
    fetch = Remote.fetch

    def counted(self: Remote, name: str, target: Path) -> None:
        fetched.append(name)
        fetch(self, name, target)

    monkeypatch.setattr(Remote, "fetch", counted)
    library.fetch("t")
    assert fetched == []
    remote.write("progress.jsonl", b'{"event": "note", "text": "one"}\n')
    reader = ProgressReader(library.folder("t") / "progress.jsonl")
    for _ in range(3):
        library.fetch("t")
        reader.read()
    assert fetched == ["progress.jsonl"]
    remote.write("progress.jsonl", b'{"event": "note", "text": "one"}\n{"event": "note", "text": "two"}\n')
    remote.write("outcome.json", b"{}")
    library.fetch("t")
    reader.read()
    assert reader.progress.notes == ["one", "two"]
    remote.remove("outcome.json")
    library.fetch("t")
    assert not (library.folder("t") / "outcome.json").exists()
    (library.folder("t") / "progress.jsonl").unlink()
    library.fetch("t")
    assert (library.folder("t") / "progress.jsonl").is_file()


def test_the_url_is_for_a_cluster_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEALIGN_TRAINER_ARTIFACTS_URL", "s3://lab/artifacts")
    with pytest.raises(ConfigurationError, match="artifacts_url is not supported for backend local"):
        load(TrainerSettings)
