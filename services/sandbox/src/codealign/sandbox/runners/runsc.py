"""Backend `runsc`: a runner is an OCI bundle run by the gVisor binary, with pipes as its standard streams."""

from __future__ import annotations

import dataclasses
import os
import secrets
import sys
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.runner.configuration import Configuration
from codealign.sandbox import bundle, gvisor, heaps, rootfs, unshare
from codealign.sandbox.runners import folders, piped
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost

PLATFORMS = {
    "systrap": ("--platform=systrap",),
    "systrap-no-fast-path": ("--platform=systrap", "--systrap-disable-fast-path"),
    "ptrace": ("--platform=ptrace",),
}
"""Platforms of gVisor with their flags. In systrap's fast path both sides wait actively for each other, which costs
more than it saves where several sandboxes share the processors.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class RunscBackend:
    """Starts runners with the gVisor binary, with settings that were determined once."""

    runsc: gvisor.Runsc
    root: rootfs.Root
    run_dir: Path
    slots: int
    start_seconds: float

    async def start(self, platform: str) -> AttachedRunner:
        """Start a runner and wait for its hello.

        Args:
            platform: gVisor's platform.

        Raises:
            RunnerLost: It did not start; the message has the end of its standard error.
        """
        name = f"runsc-{secrets.token_hex(4)}"
        folder = folders.RunFolder.create(self.run_dir, name)
        configuration = Configuration(
            name=name,
            slots=self.slots,
            backend="runsc",
            platform=platform,
            gvisor_version=str(self.runsc.release),
            image_digest=self.root.digest,
            hidden=hidden(folder.path),
        )
        bundle.write(folder.path, self.root, rootfs.interpreter(), bundle.supervisor(configuration))
        try:
            return await piped.start(
                self._command(name, platform, folder.path), name, folder.remove, self.start_seconds
            )
        except RunnerLost as error:
            raise RunnerLost(f"{platform}: {error}") from error

    def arrange_heaps(self) -> None:
        """Arrange the memory of the root's fork servers, once. Blocks for seconds the first time."""
        if heaps.are_there(self.root):
            return
        name = f"practice-{secrets.token_hex(4)}"
        folder = folders.RunFolder.create(self.run_dir, name)
        # gVisor takes a minute for what takes seconds without it.
        without = [sys.executable, "-I", "-S", unshare.__file__, str(folder.path)]
        boxed = (self._command(name, platform, folder.path) for platform in self.runsc.platforms)
        try:
            heaps.prepare(self.root, folder.path, [without, *boxed])
        finally:
            folder.remove()

    def _command(self, name: str, platform: str, folder: Path) -> list[str]:
        flags = [
            f"--root={folder / 'state'}",
            *PLATFORMS[platform],
            "--network=none",
            "--ignore-cgroups",
            "--overlay2=none",
            "--file-access-mounts=exclusive",
        ]
        if os.geteuid() != 0:
            flags.append("--rootless")
        return [str(self.runsc.path), *flags, "run", f"--bundle={folder}", name]


def hidden(folder: Path) -> tuple[str, ...]:
    """Return paths that the file probe must not find: homes, secrets, project files, and the runner's directory."""
    paths = ("/root", "/home", "/etc/shadow", "/etc/ssh", Path.home(), folder, Path(__file__).parent)
    return tuple(sorted({str(path) for path in paths}))


def prepare(cache: Path, slots: int, start_seconds: float) -> RunscBackend:
    """Find the binary, create the root file system and remove leftovers. Blocks; may download 7 MB the first time.

    Raises:
        ConfigurationError: This machine cannot run it; the message says what to do.
    """
    run_dir = cache / "run"
    # Their sandboxes ended with their gateways.
    folders.clean(run_dir)
    try:
        root = rootfs.prepare(cache)
    except RuntimeError as error:
        raise ConfigurationError(str(error)) from error
    backend = RunscBackend(gvisor.locate(cache), root, run_dir, slots, start_seconds)
    backend.arrange_heaps()
    return backend
