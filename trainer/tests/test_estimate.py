"""Estimated needs of a training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from codealign.api.training.v1 import training_pb2 as api
from codealign.common.clients import Addresses, Clients
from codealign.common.errors import FailedPrecondition
from codealign.trainer import machine
from codealign.trainer.capacity import Capacity
from codealign.trainer.estimate import Needs, estimate, rows_by_size
from codealign.trainer.model_files import ModelFiles, read_model_files
from codealign.trainer.specification import completed, micro_batch
from trainer.tests.conftest import Start
from trainer.tests.tiny import make_job

HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY = 4096, 11008, 32, 32000


def seven_billion() -> ModelFiles:
    """Shapes of the first Llama."""
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        tensors |= {f"model.layers.{layer}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        for name in ("gate", "up"):
            tensors[f"model.layers.{layer}.mlp.{name}_proj.weight"] = (INTERMEDIATE, HIDDEN)
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
        tensors |= {f"model.layers.{layer}.{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return ModelFiles(tensors, LAYERS, HIDDEN, INTERMEDIATE, 32, 32, 128, VOCABULARY)


def gigabytes(device: str = "cuda", rows: int = 1, **fields: Any) -> float:
    spec = completed(api.TrainingSpec(model="m", dataset="d", **fields), device)
    return estimate(seven_billion(), spec, rows_at_once=rows, device=device).memory / 1e9


def test_seven_billion_parameters_need_what_is_known_of_them() -> None:
    assert seven_billion().parameters == 6_738_415_616 - HIDDEN  # all but the last norm
    # 2 bytes per weight and gradient, and almost nothing for Adafactor, are 27 GB; the rest is activations.
    assert 30 < gigabytes() < 45
    assert gigabytes(gradient_checkpointing=True) < gigabytes()
    assert gigabytes(rows=2) > gigabytes()
    assert gigabytes(optimizer="adamw") == pytest.approx(gigabytes() + 1.1 * 27, abs=1)
    assert 14 < gigabytes(lora=api.Lora(), gradient_checkpointing=True) < 22
    assert gigabytes(workers=4, gradient_checkpointing=True) < gigabytes(gradient_checkpointing=True) / 2
    assert gigabytes(workers=4, sharding="ddp") > gigabytes()
    assert gigabytes("cpu", dtype="float32") > 2 * 27


def test_rows_at_once_divide_the_batch_and_follow_from_the_model_alone() -> None:
    spec = completed(api.TrainingSpec(model="m", dataset="d", batch_size=12, workers=2), "cuda")
    assert rows_by_size(seven_billion(), spec) == 1
    assert [micro_batch(spec, wanted) for wanted in (1, 2, 4, 5, 6, 8)] == [1, 2, 3, 3, 6, 6]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [10, 20, 30]),
        ("2", [30]),
        ("1, 0", [20, 10]),
        ("GPU-cc,0", [30, 10]),
        ("0,7,1", [10]),
        ("", []),
        ("-1", []),
        ("MIG-aa", [10, 20, 30]),
    ],
)
def test_only_the_gpus_that_the_program_will_see_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, seen: list[int]
) -> None:
    program = tmp_path / "nvidia-smi"
    lines = ["0, GPU-aa1, 80, 10", "1, GPU-bb1, 80, 20", "2, GPU-cc1, 80, 30"]
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.free // 2**20 for gpu in machine.gpus()] == seen


async def test_more_workers_than_gpus_are_refused_by_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Gpu(10**12, 10**12)])
    capacity = Capacity(Clients(Addresses()), 0.0)
    job = make_job(tmp_path, tmp_path, tmp_path / "job", device="cuda", workers=2)
    with pytest.raises(FailedPrecondition, match=r"spec\.workers is 2, but this machine has 1 GPUs"):
        await capacity.ensure_fits(job, Needs(memory=1, disk=1))
    await capacity.ensure_fits(job.model_copy(update={"workers": 1}), Needs(memory=1, disk=1))


def peak_bytes(pid: int) -> int:
    """Return a process's peak resident memory so far; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


@pytest.mark.slow
def test_a_training_stays_within_its_estimate(
    model_folder: Path, dataset_folder: Path, tmp_path: Path, start: Start
) -> None:
    files = read_model_files(model_folder)
    spec = completed(api.TrainingSpec(model="m", dataset="d", batch_size=4, max_length=128), "cpu")
    needs = estimate(files, spec, rows_at_once=2, device="cpu")
    job = make_job(model_folder, dataset_folder, tmp_path / "job", max_steps=2)
    process = start(job)
    peak = 0
    while process.poll() is None:
        # Not rusage: its maximum starts with that of the parent process, which may be a large pytest.
        peak = max(peak, peak_bytes(process.pid))
        time.sleep(0.02)
    assert process.returncode == 0
    assert 0 < peak < needs.memory
    written = sum(file.stat().st_size for file in job.output.rglob("*") if file.is_file())
    assert written < needs.disk
