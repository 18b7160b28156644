"""Backend `runsc`: a runner is an OCI bundle that the gVisor binary runs, with pipes as its standard streams."""

import asyncio
import dataclasses
import fcntl
import json
import os
import secrets
import shutil
import sys
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger
from codealign.sandbox import bundle, gvisor, launch, rootfs
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost, attach

PLATFORMS = ("systrap", "ptrace")
_STDERR_LINES = 50

log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class RunscBackend:
    """Everything that starting a runner takes, found once."""

    runsc: gvisor.Runsc
    root: rootfs.Root
    run_dir: Path
    profile: str
    slots: int
    start_seconds: float

    async def start(self, platform: str) -> AttachedRunner:
        """Starts a runner and waits for its hello.

        Args:
            platform: gVisor's.

        Raises:
            RunnerLost: It did not come up; the message has the end of its standard error.
        """
        name = f"runsc-{secrets.token_hex(4)}"
        folder = self.run_dir / name
        folder.mkdir(parents=True, mode=0o700)
        # Held until this process ends, however it ends: `clean` removes folders that nobody holds.
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        bundle.write(folder, self.root, rootfs.interpreter(), self._configuration(name, platform, folder))
        process = await asyncio.create_subprocess_exec(
            *self._command(name, platform, folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
            # A Ctrl-C at a terminal is the gateway's: it drains its runners first.
            start_new_session=True,
        )
        said: list[str] = []
        listener = asyncio.create_task(_listen(process, name, said))

        async def closed() -> None:
            await listener
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            os.close(lock)

        try:
            return await attach(process, closed, self.start_seconds)
        except RunnerLost as error:
            raise RunnerLost(f"{error}; {platform}: {' | '.join(said[-3:])}") from error

    def _configuration(self, name: str, platform: str, folder: Path) -> str:
        # What the files probe must not find: homes, secrets, this project's own files, and this very folder.
        hidden = [
            "/root",
            "/home",
            "/etc/shadow",
            "/etc/ssh",
            str(Path.home()),
            str(folder),
            str(Path(__file__).parent),
        ]
        return json.dumps(
            {
                "name": name,
                "slots": self.slots,
                "profile": self.profile,
                "backend": "runsc",
                "platform": platform,
                "gvisor_version": str(self.runsc.release),
                "image_digest": self.root.digest,
                "hidden": sorted(set(hidden)),
            }
        )

    def _command(self, name: str, platform: str, folder: Path) -> list[str]:
        flags = [
            f"--root={folder / 'state'}",
            f"--platform={platform}",
            "--network=none",
            "--ignore-cgroups",
            "--overlay2=none",
            "--file-access-mounts=exclusive",
        ]
        if os.geteuid() != 0:
            flags.append("--rootless")
        runsc = [str(self.runsc.path), *flags, "run", f"--bundle={folder}", name]
        return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *runsc]


async def _listen(process: asyncio.subprocess.Process, name: str, said: list[str]) -> None:
    """Standard error of runsc and of the supervisor: no program writes there."""
    assert process.stderr is not None
    while True:
        try:
            line = await process.stderr.readline()
        except ValueError:
            continue  # A line beyond the limit: dropped.
        if not line:
            return
        text = line.decode("utf-8", "replace").rstrip()
        said.append(text)
        del said[:-_STDERR_LINES]
        log.info("runner_says", runner=name, text=text[:500])


def clean(run_dir: Path) -> None:
    """Removes what gateways that were killed have left. Their sandboxes ended with them."""
    if not run_dir.is_dir():
        return
    for folder in run_dir.iterdir():
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # Just being made, or not ours.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def prepare(cache: Path, profile: str, slots: int, start_seconds: float) -> RunscBackend:
    """Finds the binary, makes the root, removes leftovers. Blocks; may download 7 MB the first time.

    Raises:
        ConfigurationError: This machine cannot run it; says what to do.
    """
    run_dir = cache / "run"
    clean(run_dir)
    try:
        root = rootfs.prepare(cache)
    except RuntimeError as error:
        raise ConfigurationError(str(error)) from error
    return RunscBackend(gvisor.locate(cache), root, run_dir, profile, slots, start_seconds)
