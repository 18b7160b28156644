"""Backend `docker`: a runner is a container under gVisor's runtime, from the same image as a cluster's pods."""

from __future__ import annotations

import dataclasses
import itertools
import json
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger
from codealign.runner.configuration import Configuration, box_bytes
from codealign.runner.profiles import DEFAULT, MIB
from codealign.sandbox import gvisor
from codealign.sandbox.runners import folders, piped
from codealign.sandbox.runners.attached import AttachedRunner
from codealign.sandbox.runners.runsc import hidden

_LABEL = "codealign.run-dir"
_USER = "65532:65532"
_GVISOR_MEMORY = 256 * MIB
_GVISOR_THREADS, _SLOT_THREADS = 512, 256
"""Host threads of gVisor itself, and those for each slot."""
_DEFAULT_PLATFORM = "systrap"
"""gVisor's default if the runtime's entry names none."""
_COMMAND_SECONDS = 60.0

log = get_logger(__name__)


def _docker(*arguments: str) -> str:
    """Run a docker command and return its output.

    Raises:
        RuntimeError: The command failed; the message is its last line of output.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        raise RuntimeError(" ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]))
    return done.stdout


@dataclasses.dataclass(frozen=True, slots=True)
class Runtime:
    """gVisor's runtime as configured in the daemon."""

    name: str
    platform: str
    release: str
    """Release date; empty if the daemon is on another machine."""


@dataclasses.dataclass(frozen=True, slots=True)
class DockerBackend:
    """Starts runners in containers, with settings that were determined once."""

    runtime: Runtime
    image: str
    image_id: str
    run_dir: Path
    slots: int
    start_seconds: float

    async def start(self) -> AttachedRunner:
        """Start a runner and wait for its hello.

        Raises:
            RunnerLost: It did not start; the message has the end of its standard error.
        """
        name = f"codealign-runner-{secrets.token_hex(4)}"
        folder = folders.RunFolder.create(self.run_dir, name)
        configuration = Configuration(
            name=name,
            slots=self.slots,
            backend="docker",
            platform=self.runtime.platform,
            gvisor_version=self.runtime.release,
            image_digest=self.image_id,
            hidden=hidden(folder.path),
        )

        def closed() -> None:
            _remove(name)
            folder.remove()

        command = self._command(name, configuration)
        return await piped.start(command, name, closed, self.start_seconds, is_child=False)

    def _command(self, name: str, configuration: Configuration) -> list[str]:
        memory = box_bytes(DEFAULT, self.slots) + _GVISOR_MEMORY
        flags = {
            "name": name,
            "label": f"{_LABEL}={_owner(self.run_dir)}",
            "runtime": self.runtime.name,
            "pull": "never",
            "network": "none",
            "user": _USER,
            "cap-drop": "ALL",
            "security-opt": "no-new-privileges",
            "pids-limit": str(_GVISOR_THREADS + self.slots * _SLOT_THREADS),
            "memory": str(memory),
            "memory-swap": str(memory),
            "ulimit": "nofile=1024:1024",
            "ipc": "private",
            "hostname": "sandbox",
            # If the machine runs out of memory, the kernel kills the sandbox first.
            "oom-score-adj": "1000",
            # Otherwise the daemon stores every frame in a file.
            "log-driver": "none",
        }
        options = [f"--{flag}={value}" for flag, value in flags.items()]
        program = ["codealign.runner.stdio", configuration.to_json()]
        docker = shutil.which("docker") or "docker"
        # Its standard input is the gateway's pipe. When the pipe ends, so does the supervisor, and --rm cleans up.
        return [docker, "run", "--interactive", "--rm", "--read-only", *options, self.image, *program]


def _owner(run_dir: Path) -> str:
    """Identify the owner of containers: a daemon may serve several machines and users."""
    return f"{socket.gethostname()}:{run_dir.resolve()}"


def _remove(name: str) -> None:
    try:
        _docker("rm", "--force", name)
    except RuntimeError as error:
        # Usually it is already gone.
        log.debug("container_not_removed", container=name, error=str(error))


def _containers(run_dir: Path) -> Iterator[str]:
    """Yield the names of all containers started by gateways with this directory."""
    listed = _docker("ps", "--all", "--filter", f"label={_LABEL}={_owner(run_dir)}", "--format", "{{.Names}}")
    yield from listed.split()


def clean(run_dir: Path) -> None:
    """Remove the containers and directories of gateways that were killed."""
    for name in _containers(run_dir):
        if not folders.is_held(run_dir / name):
            log.warning("container_left_over", container=name)
            _remove(name)
    folders.clean(run_dir)


def _find_runtime(name: str) -> Runtime:
    runtimes: dict[str, dict[str, Any]] = json.loads(_docker("info", "--format", "{{json .Runtimes}}")) or {}
    if name not in runtimes:
        raise ConfigurationError(
            f"CODEALIGN_SANDBOX_DOCKER_RUNTIME: Docker has no runtime {name!r} (available: "
            f"{', '.join(sorted(runtimes))}). Register gVisor's runsc: "
            "https://gvisor.dev/docs/user_guide/quick_start/docker/"
        )
    entry = runtimes[name]
    platform, release = _DEFAULT_PLATFORM, ""
    arguments = list(entry.get("runtimeArgs") or ())
    for argument, following in itertools.pairwise([*arguments, ""]):
        flag, _, value = argument.partition("=")
        if flag in ("-platform", "--platform"):
            platform = value or following
    path = shutil.which(str(entry.get("path", "")))
    if path is not None:
        try:
            release = str(gvisor.examine(Path(path)).release)
        except gvisor.Unusable as error:
            raise ConfigurationError(
                f"CODEALIGN_SANDBOX_DOCKER_RUNTIME: runtime {name!r} is {path}, which is no usable gVisor: {error}. "
                "Name a runtime that is a current runsc"
            ) from None
    return Runtime(name, platform, release)


def _find_image(image: str) -> str:
    try:
        return _docker("image", "inspect", "--format", "{{.Id}}", image).strip()
    except RuntimeError as error:
        raise ConfigurationError(
            f"CODEALIGN_SANDBOX_IMAGE: Docker has no image {image} ({error}). Build it from the repository: "
            f"docker build --file sandbox-runner/Dockerfile --tag {image} . (or pull it: docker pull {image})"
        ) from None


def prepare(cache: Path, slots: int, start_seconds: float, image: str, runtime: str) -> DockerBackend:
    """Query Docker for everything needed, and remove leftovers. Blocks.

    Raises:
        ConfigurationError: Docker, its daemon, gVisor's runtime or the image is missing; the message says what to do.
    """
    if shutil.which("docker") is None:
        raise ConfigurationError(
            "backend=docker: docker is not on PATH. Install Docker, or leave CODEALIGN_SANDBOX_BACKEND unset: "
            "runsc needs no container engine"
        )
    try:
        _docker("version", "--format", "{{.Server.Version}}")
    except RuntimeError as error:
        raise ConfigurationError(
            f"backend=docker: the Docker daemon does not answer ({error}). Start it, or set DOCKER_HOST to another"
        ) from None
    run_dir = cache / "run-docker"
    try:
        found, image_id = _find_runtime(runtime), _find_image(image)
        clean(run_dir)
    except RuntimeError as error:
        raise ConfigurationError(f"backend=docker: {error}") from error
    return DockerBackend(found, image, image_id, run_dir, slots, start_seconds)
