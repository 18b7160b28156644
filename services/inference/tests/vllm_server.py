"""The inference server with engine vllm as a process of .venv-vllm, and its child processes."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
START_SECONDS = 240.0

Process = subprocess.Popen[bytes]


def require_environment() -> None:
    """Skip if .venv-vllm is missing; fail in CI."""
    if not PYTHON.exists():
        if os.environ.get("CI"):
            pytest.fail("CI without .venv-vllm: run `make setup-vllm`")
        pytest.skip("run `make setup-vllm`")


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return a server's environment, with its files in this folder."""
    defaults = {"kv_cache_bytes": 2**27, "cache_dir": folder / "cache", "endpoint_file": folder / "endpoint.json"}
    chosen = {f"CODEALIGN_INFERENCE_{name.upper()}": str(value) for name, value in {**defaults, **settings}.items()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CODEALIGN_")}
    return {**clean, "HF_HUB_OFFLINE": "1", **chosen}


@contextmanager
def started(folder: Path, model: Path, **settings: object) -> Iterator[Process]:
    """Start a server; kill it at the end if it still runs."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [str(PYTHON), "-m", "codealign.inference.main", "--engine", "vllm", "--model", str(model)]
    with (folder / "stderr").open("wb") as stderr, (folder / "stdout").open("wb") as stdout:
        process = subprocess.Popen(arguments, env=environment(folder, **settings), stdout=stdout, stderr=stderr)
    try:
        yield process
    finally:
        left = descendants(process.pid)
        if process.poll() is None:
            process.kill()
        process.wait()
        for pid in left:  # vLLM's processes exit by themselves once their parent is gone
            wait_until_gone(pid)


def ports(folder: Path, process: Process) -> dict[str, int]:
    """Return the server's address once it listens."""
    deadline = time.monotonic() + START_SECONDS
    while not (folder / "endpoint.json").exists():
        assert process.poll() is None, (folder / "stderr").read_text()[-3000:]
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.1)
    read: dict[str, int] = json.loads((folder / "endpoint.json").read_text())
    return read


def descendants(pid: int) -> list[int]:
    """Return the ids of all descendants of a process, without those that have ended and only wait to be reaped."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in filter(_alive, children):
            found += [child, *descendants(child)]
    return found


def wait_until_gone(pid: int, seconds: float = 30.0) -> None:
    """Wait for the end of a process that is not our child."""
    deadline = time.monotonic() + seconds
    while _alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def command(pid: int) -> str:
    """Return a process's name."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _alive(pid: int) -> bool:
    try:
        state: Any = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return bool(state != "Z")
