"""gVisor sandboxes with a measured program in place of a runner: the same root, mounts, flags and platform."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from codealign.runner import build
from codealign.runner.configuration import Configuration, program_environment
from codealign.sandbox import bundle, launch, rootfs
from codealign.sandbox.runners import folders, runsc
from tests.bench.rows.workers import DRIVER, Driver, RowFailed, TextDriver

_SOURCE = Path(__file__).with_name("forks.c")
_PLACE = "/box"
_START_SECONDS = 120.0
_D = TypeVar("_D", bound=Driver)


class Boxes:
    """Starts gVisor sandboxes."""

    def __init__(self, cache: Path, platform: str) -> None:
        """Finds what a box is made of.

        Args:
            cache: Where gateways keep theirs too.
            platform: gVisor's.
        """
        self._backend = runsc.prepare(cache, 1, _START_SECONDS)
        self._platform = platform
        self._native = cache / "native"
        self.release = self._backend.runsc.release

    def driver(self, *arguments: str) -> Driver:
        """Start `driver.py` in a new sandbox.

        Args:
            arguments: Its mode, and what belongs to it.
        """
        command = [str(rootfs.interpreter().executable), "-S", "-s", "-P", "-c", DRIVER, *arguments]
        return self._start(command, Driver)

    def spawner(self) -> Driver:
        """Start a driver that spawns interpreters."""
        return self.driver("spawn", str(rootfs.interpreter().executable), "-I", "-S", "-c")

    def forks(self) -> TextDriver:
        """Start the loop of fork and exit, without Python.

        Raises:
            RowFailed: The loop cannot be compiled.
        """
        program = self._native / "forks"
        if not program.exists():
            self._native.mkdir(exist_ok=True)
            try:
                command = [*build.compiler(), "-O2", "-static", "-o", str(program), str(_SOURCE)]
            except RuntimeError as error:
                raise RowFailed(str(error)) from None
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RowFailed(f"it does not compile: {done.stderr.strip()[-200:]}")
        return self._start([f"{_PLACE}/forks"], TextDriver)

    def _start(self, command: list[str], kind: type[_D]) -> _D:
        name = f"box-{secrets.token_hex(4)}"
        folder = folders.RunFolder.create(self._backend.run_dir, name)
        python = rootfs.interpreter()
        bundle.write(folder.path, self._backend.root, python, bundle.supervisor(Configuration(name, 1, "runsc")))
        path = folder.path / "config.json"
        config = json.loads(path.read_text())
        given = dict(variable.split("=", 1) for variable in config["process"]["env"])
        config["process"]["args"] = command
        config["process"]["env"] = [f"{key}={value}" for key, value in program_environment(given).items()]
        if self._native.is_dir():
            bind = {"destination": _PLACE, "source": str(self._native), "type": "bind", "options": ["rbind", "ro"]}
            config["mounts"].append(bind)
        path.write_text(json.dumps(config))
        # Like a gateway's runners, they die with their parent.
        runs = self._backend._command(name, self._platform, folder.path)
        start = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        return kind([*start, *runs], closed=folder.remove)
