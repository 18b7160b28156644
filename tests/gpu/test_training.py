"""Training on GPUs: bfloat16, and FSDP over two GPUs.

Skipped, with the reason, where there are none. Where there are: `make test-gpu`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codealign.trainer.sft.job import Job
from codealign.trainer.sft.progress import read_outcome
from trainer.tests.conftest import Start, curve, log_of, start
from trainer.tests.tiny import make_dataset, make_job, make_model

__all__ = ["start"]  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GPUS = torch.cuda.device_count()
needs_one = pytest.mark.skipif(GPUS < 1, reason="PyTorch sees no GPU")
needs_two = pytest.mark.skipif(GPUS < 2, reason=f"two GPUs are needed; PyTorch sees {GPUS}")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return make_model(folder / "model"), make_dataset(folder / "data", 22)


def trained(start: Start, job: Job) -> dict[str, torch.Tensor]:
    """Return the weights that the program produces for a job."""
    assert start(job).wait(600) == 0, log_of(job)[-3000:]
    outcome = read_outcome(job.outcome_file)
    assert outcome is not None
    assert outcome.state == "succeeded"
    weights: dict[str, torch.Tensor] = load_file(job.result / "model.safetensors")
    return weights


@needs_one
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_bfloat16_learns_as_float32_on_a_cpu_does(
    start: Start, sources: tuple[Path, Path], tmp_path: Path, gradient_checkpointing: bool
) -> None:
    on_cpu = make_job(*sources, tmp_path / "cpu")
    trained(start, on_cpu)
    on_gpu = make_job(
        *sources, tmp_path / "gpu", device="cuda", dtype="bfloat16", gradient_checkpointing=gradient_checkpointing
    )
    weights = trained(start, on_gpu)
    assert all(tensor.dtype == torch.bfloat16 for tensor in weights.values())
    expected = curve(on_cpu)
    assert list(curve(on_gpu).values()) == pytest.approx(list(expected.values()), rel=0.03)


@needs_two
@pytest.mark.parametrize("sharding", ["fsdp", "ddp"])
def test_two_gpus_train_as_one_does(start: Start, sources: tuple[Path, Path], tmp_path: Path, sharding: str) -> None:
    one = make_job(*sources, tmp_path / "one", device="cuda")
    two = make_job(*sources, tmp_path / "two", device="cuda", workers=2, micro_batch_size=1, sharding=sharding)
    reference, weights = trained(start, one), trained(start, two)
    assert list(curve(two).values()) == pytest.approx(list(curve(one).values()), abs=1e-3)
    assert max(float((weights[name] - reference[name]).abs().max()) for name in weights) < 1e-3
