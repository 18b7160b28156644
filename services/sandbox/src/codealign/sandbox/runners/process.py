"""Backend `process`: the runner's bundle without gVisor, for debugging. Only used if explicitly configured.

Runs the same bundle as the backend `runsc`, isolated by the machine's namespaces if available. Every result has
`ISOLATION_PROCESS`, and no row of a published version may depend on it.
"""

from __future__ import annotations

import dataclasses
import secrets
import sys
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.runner.configuration import Configuration
from codealign.sandbox import bundle, rootfs, unshare
from codealign.sandbox.runners import folders, piped
from codealign.sandbox.runners.attached import AttachedRunner
from codealign.sandbox.runners.runsc import hidden


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessBackend:
    """Starts runners without gVisor, with settings that were determined once."""

    root: rootfs.Root
    run_dir: Path
    slots: int
    start_seconds: float

    async def start(self) -> AttachedRunner:
        """Start a runner and wait for its hello.

        Raises:
            RunnerLost: It did not start; the message has the end of its standard error.
        """
        name = f"process-{secrets.token_hex(4)}"
        folder = folders.RunFolder.create(self.run_dir, name)
        configuration = Configuration(
            name=name,
            slots=self.slots,
            backend="process",
            image_digest=self.root.digest,
            hidden=hidden(folder.path),
            isolation="process",
        )
        bundle.write(folder.path, self.root, rootfs.interpreter(), bundle.supervisor(configuration))
        command = [sys.executable, "-I", "-S", unshare.__file__, str(folder.path)]
        return await piped.start(command, name, folder.remove, self.start_seconds)


def prepare(cache: Path, slots: int, start_seconds: float) -> ProcessBackend:
    """Create the root file system and remove leftovers. Blocks.

    Raises:
        ConfigurationError: This machine cannot run it; the message says what to do.
    """
    run_dir = cache / "run"
    folders.clean(run_dir)
    try:
        root = rootfs.prepare(cache)
    except RuntimeError as error:
        raise ConfigurationError(str(error)) from error
    return ProcessBackend(root, run_dir, slots, start_seconds)
