"""Entry point of a runner pod: the program `codealign-runner`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from codealign.api.runner.v1.runner_pb2_grpc import add_RunnerServiceServicer_to_server
from codealign.common.errors import EXIT_CONFIGURATION, ConfigurationError
from codealign.common.server import Callers, Readiness, Registration, serve
from codealign.common.settings import load
from codealign.runner.configuration import Configuration
from codealign.runner.pod import secrecy
from codealign.runner.pod.servicer import RunnerServicer
from codealign.runner.pod.settings import RunnerSettings
from codealign.runner.supervisor import Supervisor

SERVICE = "codealign.api.runner.v1.RunnerService"
CALLERS: Callers = {"sandbox": ("Attach",)}
"""Only the gateway, not even people: an attached caller's programs run alongside everyone else's."""
IMAGE_DIGEST = Path("/opt/codealign/image-digest")
"""Written when the image is built."""
_TLS_FILES = ("tls_cert_file", "tls_key_file", "tls_client_ca_file")
_HIDDEN = ("/var/run/secrets", "/run/secrets", "/var/run/docker.sock", "/run/containerd")
_CONNECTIONS = 64
"""Descriptors reserved for connections of gateways and probes."""


def _configuration(settings: RunnerSettings, hidden: Sequence[str]) -> Configuration:
    written = IMAGE_DIGEST.read_text().strip() if IMAGE_DIGEST.is_file() else ""
    return Configuration(
        name=settings.name,
        slots=settings.slots,
        backend="grpc",
        platform=settings.platform,
        gvisor_version=settings.gvisor_version,
        image_digest=settings.image_digest or written,
        hidden=(*_HIDDEN, *hidden),
    )


class _Pod:
    """State prepared before the server starts."""

    def __init__(self, hidden: Sequence[str]) -> None:
        self._hidden = hidden

    @contextlib.asynccontextmanager
    async def build(self, settings: RunnerSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
        """Verify the isolation, then serve. Not ready unless every check passes; gateways are told which one failed."""
        await readiness.set(False, "isolation is being verified")
        supervisor = Supervisor(_configuration(settings, self._hidden), _CONNECTIONS)
        await asyncio.to_thread(supervisor.start)
        missing = "; ".join(
            f"{check.name}: {check.evidence}" for check in supervisor.description.isolation_checks if not check.passed
        )
        await readiness.set(supervisor.works, f"isolation is not verified: {missing}" if missing else "")
        servicer = RunnerServicer(supervisor, readiness.draining, settings.gateways)
        yield [Registration(SERVICE, add_RunnerServiceServicer_to_server, servicer, CALLERS)]


def _conceal() -> list[str]:
    """Hide the TLS files from programs, and point the settings to the new locations."""
    settings = load(RunnerSettings)
    files = {name: getattr(settings, name) for name in _TLS_FILES if getattr(settings, name) is not None}
    copies = secrecy.conceal(list(files.values()))
    for name, path in files.items():
        os.environ[f"CODEALIGN_RUNNER_{name.upper()}"] = str(copies[path])
    return [str(path) for path in files.values()]


def main() -> None:
    """Serve until SIGTERM."""
    try:
        hidden = _conceal()
    except ConfigurationError as error:
        print(f"codealign-runner: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)
    serve("runner", RunnerSettings, _Pod(hidden).build)
    # Slot threads may still be running; end the sandbox anyway.
    os._exit(0)


if __name__ == "__main__":
    main()
