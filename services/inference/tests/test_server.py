"""The server as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub

Process = subprocess.Popen[bytes]
Start = Callable[..., Process]


def log(tmp_path: Path, number: int = 0) -> Path:
    """Return the stderr of the test's n-th process."""
    return tmp_path / f"log-{number}"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Process] = []

    def begin(*flags: str, **variables: str) -> Process:
        environment = {
            **os.environ,
            "CODEALIGN_INFERENCE_ENDPOINT_FILE": str(tmp_path / "endpoint.json"),
            "CODEALIGN_INFERENCE_CACHE_DIR": str(tmp_path / "cache"),
            **{f"CODEALIGN_INFERENCE_{key.upper()}": value for key, value in variables.items()},
        }
        arguments = [sys.executable, "-m", "codealign.inference.main", *flags]
        with log(tmp_path, len(running)).open("wb") as stderr:
            running.append(subprocess.Popen(arguments, env=environment, stderr=stderr))
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def endpoint(tmp_path: Path, process: Process) -> dict[str, int]:
    path = tmp_path / "endpoint.json"
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ports: dict[str, int] = json.loads(path.read_text())
    return ports


def ready(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service="readiness"))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_a_model_is_served_and_recorded_and_then_replayed_without_torch(
    start: Start, tmp_path: Path, model_folder: Path
) -> None:
    recording = tmp_path / "run.jsonl"
    request = pb.GenerateRequest(
        prompt="def add",
        samples=[pb.Sample(attempt=at, seed=at) for at in range(4)],
        sampling=pb.SamplingParameters(temperature=1, max_tokens=8),
    )

    def served(process: Process) -> list[pb.GenerateResponse]:
        ports = endpoint(tmp_path, process)
        assert ready(ports["health_port"])
        with grpc.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
            answers = list(InferenceServiceStub(channel).Generate(request))
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics_port']}/metrics") as page:
            metrics = page.read().decode()
        assert 'codealign_inference_tokens_total{kind="generated"}' in metrics
        assert 'codealign_inference_completions_total{finish_reason="length"}' in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        return sorted(answers, key=lambda answer: answer.completion.attempt)

    first = served(start("--model", str(model_folder), "--record", str(recording), slots="2"))
    # A torch that cannot be imported simulates a missing one.
    without = tmp_path / "without"
    without.mkdir()
    for module in ("torch", "transformers"):
        (without / f"{module}.py").write_text("raise ModuleNotFoundError(name=__name__)")
    path = os.pathsep.join([str(without), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["PYTHONPATH"], before = path, os.environ.get("PYTHONPATH")
    try:
        replaying = start("--engine", "replay", model=str(recording))
        refused = start("--model", str(model_folder), health_port="0")
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    assert refused.wait(30) == 2
    assert "pip install 'codealign-inference[transformers]'" in log(tmp_path, 2).read_text()
    assert served(replaying) == first


@pytest.mark.model
def test_a_model_that_cannot_be_served_ends_the_process_with_one_line(start: Start, tmp_path: Path) -> None:
    process = start("--model", str(tmp_path / "none"))
    assert process.wait(30) == 2
    last = log(tmp_path).read_text().strip().splitlines()[-1]
    assert last.startswith("codealign-inference: model folder")
    assert "does not exist: give a folder or a hub id" in last


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("slots", "0", "CODEALIGN_INFERENCE_SLOTS"),
        ("vllm_args", "{", "CODEALIGN_INFERENCE_VLLM_ARGS (--vllm-args): is not a JSON object"),
        ("vllm_args", "[1]", "CODEALIGN_INFERENCE_VLLM_ARGS (--vllm-args): Input should be a valid dictionary"),
        ("engine", "openai", "engine openai needs openai_base_url; example: http"),
    ],
)
def test_a_wrong_setting_is_named(start: Start, tmp_path: Path, setting: str, value: str, message: str) -> None:
    process = start(**{setting: value})
    assert process.wait(30) == 2
    assert message in log(tmp_path).read_text().splitlines()[-1]
