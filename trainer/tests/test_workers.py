"""Several workers: the same training as with one, including killed workers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from codealign.trainer.sft.job import LoraSettings
from codealign.trainer.sft.program import train
from trainer.tests.conftest import Process, Start, curve, events, log_of, weights
from trainer.tests.tiny import make_job

pytestmark = pytest.mark.slow


def children(process: Process) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def test_two_workers_of_which_one_is_killed_end_as_one_worker_does(
    model_folder: Path, dataset_folder: Path, tmp_path: Path, start: Start
) -> None:
    one = make_job(model_folder, dataset_folder, tmp_path / "one")
    train(one)
    for sharding, kill_at in (("fsdp", 5), ("ddp", 0)):
        two = make_job(
            model_folder,
            dataset_folder,
            tmp_path / sharding,
            workers=2,
            micro_batch_size=1,
            sharding=sharding,
            max_restarts=2,
        )
        process = start(two)
        if kill_at:
            while len(events(two, "step")) < kill_at:
                assert process.poll() is None, log_of(two)
                time.sleep(0.01)
            os.kill(children(process)[-1], signal.SIGKILL)
        assert process.wait(240) == 0, log_of(two)[-3000:]
        resumed = [event["resumed_step"] for event in events(two, "started")]
        # How far the workers came before the kill depends on the machine; checkpoints are three steps apart.
        assert resumed in ([[0, 3], [0, 6], [0, 9]] if kill_at else [[0]])
        losses, expected = curve(two), curve(one)
        assert losses.keys() == expected.keys()
        assert [losses[step] for step in sorted(losses)] == pytest.approx(
            [expected[step] for step in sorted(expected)], abs=1e-5
        )
        trained, reference = weights(two), weights(one)
        assert trained.keys() == reference.keys()
        assert max(float((trained[name] - reference[name]).abs().max()) for name in trained) < 1e-5


def test_adapters_of_sharded_workers_are_merged(
    model_folder: Path, dataset_folder: Path, tmp_path: Path, start: Start
) -> None:
    lora = LoraSettings(rank=4)
    one = make_job(model_folder, dataset_folder, tmp_path / "one", lora=lora)
    train(one)
    two = make_job(model_folder, dataset_folder, tmp_path / "two", lora=lora, workers=2, micro_batch_size=1)
    assert start(two).wait(240) == 0, log_of(two)[-3000:]
    trained, reference = weights(two), weights(one)
    assert trained.keys() == reference.keys()
    assert max(float((trained[name] - reference[name]).abs().max()) for name in trained) < 1e-5


def test_workers_that_cannot_go_on_stop_at_once_with_one_sentence(
    model_folder: Path, dataset_folder: Path, tmp_path: Path, start: Start
) -> None:
    job = make_job(
        model_folder,
        dataset_folder,
        tmp_path / "nan",
        workers=2,
        micro_batch_size=1,
        learning_rate=1e30,
        max_restarts=2,
    )
    assert start(job).wait(240) != 0
    assert len(events(job, "started")) == 1
    assert "loss or gradient is not finite" in job.outcome_file.read_text()


def test_the_sharded_optimizer_is_adafactor() -> None:
    """With one worker, the update equals the library's to the last bits."""
    from transformers import Adafactor

    from codealign.trainer.sft.sharded_adafactor import ShardedAdafactor

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import Shard, distribute_tensor

        mesh = init_device_mesh("cpu", (1,))
        for shape in ((6, 4), (5,), (3, 4, 5)):
            torch.manual_seed(0)
            start = torch.randn(shape)
            plain = torch.nn.Parameter(start.clone())
            sharded = torch.nn.Parameter(distribute_tensor(start.clone(), mesh, [Shard(0)]))
            reference = Adafactor([plain], lr=0.1, scale_parameter=False, relative_step=False)
            ours = ShardedAdafactor([sharded], lr=0.1)
            for _ in range(3):
                gradient = torch.randn(shape)
                plain.grad = gradient.clone()
                sharded.grad = distribute_tensor(gradient.clone(), mesh, [Shard(0)])
                reference.step()
                ours.step()
            torch.testing.assert_close(sharded.data.to_local(), plain.data, rtol=1e-6, atol=1e-7)
    finally:
        torch.distributed.destroy_process_group()
