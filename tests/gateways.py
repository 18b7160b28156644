"""Gateways for long measurements: each with a fresh cache, leaving nothing on the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from codealign.sandbox import gvisor
from services.sandbox.tests.conftest import CACHE, Gateway
from tests.hostile.host import descendants

_START_SECONDS = 120.0
_STOP_SECONDS = 15.0
_LOG_CHARACTERS = 20_000


def end_by_signals() -> None:
    """Convert SIGTERM (of `timeout`, for example) into an exception, so that every `finally` runs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextlib.contextmanager
def own_cache(runsc: Path | None = None) -> Iterator[Path]:
    """Return an exclusive cache directory that already has the runsc binary if it was ever downloaded.

    Args:
        runsc: The binary to use in place of the one that a gateway finds.
    """
    path = os.environ["PATH"]
    with tempfile.TemporaryDirectory(prefix="codealign-") as name:
        cache = Path(name) / "cache"
        cache.mkdir()
        (CACHE / "bin").mkdir(parents=True, exist_ok=True)
        (cache / "bin").symlink_to(CACHE / "bin")
        if (CACHE / "platform.json").exists():
            shutil.copy(CACHE / "platform.json", cache)
        if runsc is not None:
            gvisor.examine(runsc)
            # PATH comes first, for the gateway and for this module.
            (cache / "path").mkdir()
            (cache / "path" / "runsc").symlink_to(runsc.resolve())
            os.environ["PATH"] = f"{cache / 'path'}:{path}"
        try:
            yield cache
        finally:
            os.environ["PATH"] = path
            # Otherwise the directory could not be removed; `left_over` reports them.
            for mount in mounts(cache):
                subprocess.run(["umount", "--lazy", mount], check=False)


@contextlib.contextmanager
def started(cache: Path, runners: int, slots: int, **settings: str) -> Iterator[Gateway]:
    """Start a gateway and wait until all its slots are ready.

    Args:
        cache: See `own_cache`.
        runners: gVisor sandboxes.
        slots: Executions at once in each of them.
        settings: Further settings by their names.
    """
    folder = Path(tempfile.mkdtemp(prefix="gateway-", dir=cache.parent))
    gateway = Gateway(folder, cache_dir=str(cache), runners=str(runners), slots=str(slots), **settings)
    try:
        gateway.connect()
        gateway.wait_ready()
        wait_whole(gateway, runners * slots)
        yield gateway
    except BaseException:
        print(f"the gateway's log ends:\n{gateway.log.read_text()[-_LOG_CHARACTERS:]}")
        raise
    finally:
        try:
            gateway.stop()
        except subprocess.TimeoutExpired:
            gateway.process.kill()
            gateway.process.wait()
            raise


def wait_whole(gateway: Gateway, slots: int) -> None:
    """Wait until the gateway has this number of slots.

    Raises:
        TimeoutError: The slots did not become available.
    """
    deadline = time.monotonic() + _START_SECONDS
    while gateway.capacity().slots < slots:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the gateway has {gateway.capacity().slots} of {slots} slots")
        time.sleep(0.05)


def mounts(folder: Path) -> list[str]:
    """Return the mount points below a directory."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def left_over(cache: Path) -> list[str]:
    """Return what the gateways and sandboxes of this process have left, or "" for nothing."""
    return patient(lambda: _left_over(cache))


def patient(look: Callable[[], list[str]]) -> list[str]:
    """Return what is still left after a grace period."""
    deadline = time.monotonic() + _STOP_SECONDS
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _left_over(cache: Path) -> list[str]:
    run = cache / "run"
    found = [f"folder {path}" for path in (sorted(run.iterdir()) if run.is_dir() else ())]
    found += [f"mount {point}" for point in mounts(cache)]
    return found + [f"process {pid}" for pid in sorted(descendants(os.getpid()))]
