"""Engine vllm-grpc against vLLM's own server, where vLLM has its Rust frontend."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codealign.common.errors import ConfigurationError
from codealign.inference.engine_opener import open_engine
from codealign.inference.engines.base import Completion, FinishReason, GenerationRequest, Sample, Sampling
from codealign.inference.settings import InferenceSettings
from tests.ports import free_port

from . import vllm_server as vllm

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.timeout(900)]

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024}
START_SECONDS = 600.0


def frontend() -> Path:
    """Return vLLM's Rust frontend, or skip: the CPU build comes without it."""
    vllm.require_environment()
    chosen = os.environ.get("CODEALIGN_TEST_VLLM_RS")
    found = (
        [Path(chosen)] if chosen else list((vllm.ROOT / ".venv-vllm").glob("lib/python3*/site-packages/vllm/vllm-rs"))
    )
    if not found or not found[0].is_file():
        pytest.skip(
            "vLLM's build in .venv-vllm has no Rust frontend (vllm-rs): set CODEALIGN_TEST_VLLM_RS to that file of the "
            "package vllm, in the same version"
        )
    return found[0]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Iterator[str]:
    binary = frontend()
    work = tmp_path_factory.mktemp("vllm-grpc")
    model, ports = make_model(work / "tiny", **SIZES), (free_port(), free_port())
    # The command needs metadata under the name vllm, which the CPU build does not have.
    metadata = work / "metadata" / "vllm-0+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0+cpu\n")
    environment = {
        **os.environ,
        "VLLM_USE_RUST_FRONTEND": "1",
        "VLLM_RUST_FRONTEND_PATH": str(binary),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": str(metadata.parents[1]),
    }
    command = [
        *(str(vllm.PYTHON.with_name("vllm")), "serve", str(model), "--served-model-name", "tiny"),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--no-enable-chunked-prefill"),
        *("--max-num-batched-tokens", "1024", "--host", "127.0.0.1"),
        *("--port", str(ports[0]), "--grpc-port", str(ports[1])),
    ]
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + START_SECONDS
        while not _listens(ports[1]):
            assert process.poll() is None, (work / "log").read_text()[-3000:]
            assert time.monotonic() < end, "vLLM did not start"
            time.sleep(0.5)
        yield f"127.0.0.1:{ports[1]}"
    finally:
        left = vllm.descendants(process.pid)
        process.terminate()
        process.wait(60)
        for pid in left:
            vllm.wait_until_gone(pid)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def engine(address: str) -> AsyncIterator[Any]:
    engine = await asyncio.to_thread(open_engine, settings(address), "tiny")
    yield engine
    await engine.close()


def settings(address: str) -> InferenceSettings:
    return InferenceSettings(engine="vllm-grpc", vllm_grpc_address=address)


async def complete(engine: Any, prompt: str, sampling: Sampling, *seeds: int) -> list[Completion]:
    samples = tuple(Sample(at, seed) for at, seed in enumerate(seeds))
    found = [one async for one in engine.generate(GenerationRequest(prompt, samples, sampling))]
    return sorted(found, key=lambda completion: completion.attempt)


async def test_completions_pass_the_checks(engine: Any) -> None:
    for prompt in ("def add", "größer 你好", "for item in items:"):
        [completion] = await complete(engine, prompt, Sampling(max_tokens=40), 0)
        assert completion.text
        assert completion.cached_prompt_tokens is None
        assert completion.generated_tokens <= 40


async def test_seeds_and_stop_strings(engine: Any) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=40)
    first, other = await complete(engine, "def add", sampling, 5, 6)
    assert (await complete(engine, "def add", sampling, 5))[0].text == first.text != other.text
    [whole] = await complete(engine, "def add", Sampling(max_tokens=40), 0)
    stop = whole.text[8:11]
    [cut] = await complete(engine, "def add", Sampling(max_tokens=40, stop=(stop,)), 0)
    assert (cut.finish_reason, cut.text) == (FinishReason.STOP_STRING, whole.text[: whole.text.index(stop)])


async def test_a_model_that_is_not_there(address: str) -> None:
    with pytest.raises(ConfigurationError, match="it serves: tiny"):
        await asyncio.to_thread(open_engine, settings(address), "absent")
