"""A tiny model and a dataset, and the training program as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from codealign.trainer.sft.job import Job

# PyTorch is imported by what needs it: the unit tests, which share this file, do not.
if TYPE_CHECKING:
    import torch

Process = subprocess.Popen[bytes]
Start = Callable[[Job], Process]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trainer.tests.tiny import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trainer.tests.tiny import make_dataset

    return make_dataset(tmp_path_factory.mktemp("datasets") / "tiny", 22)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the program on a job, as the service does."""
    running: list[Process] = []

    def begin(job: Job) -> Process:
        job.output.mkdir(parents=True, exist_ok=True)
        path = job.output / "job.json"
        path.write_text(job.model_dump_json())
        with (job.output / "log.txt").open("ab") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "codealign.trainer.sft", str(path)],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "CODEALIGN_TRAINER_FOLLOW_PARENT": str(os.getpid())},
                )
            )
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def events(job: Job, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind that the program has written so far."""
    if not job.progress_file.exists():
        return []
    lines = job.progress_file.read_text().split("\n")[:-1]
    return [event for line in lines if (event := json.loads(line))["event"] == kind]


def log_of(job: Job) -> str:
    return (job.output / "log.txt").read_text()


def curve(job: Job) -> dict[int, float]:
    """Return the loss of each step, as computed by the last process that executed it."""
    found: dict[int, float] = {}
    for line in job.progress_file.read_text().split("\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "started":
            found = {step: loss for step, loss in found.items() if step <= event["resumed_step"]}
        if event["event"] == "step":
            found[event["step"]] = event["loss"]
    return found


def weights(job: Job) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(job.result / "model.safetensors")
    return found
