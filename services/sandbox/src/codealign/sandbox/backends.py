"""Creates runners according to the settings."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common import discovery
from codealign.common.clients import ClientTls
from codealign.common.logs import get_logger
from codealign.common.server import Readiness
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.platforms import AutomaticPlatform
from codealign.sandbox.pool import Backend, Pool
from codealign.sandbox.runners import docker, process, remote, runsc
from codealign.sandbox.settings import SandboxSettings

WITHOUT_ISOLATION = (
    "isolation=process: programs run WITHOUT gVisor, as ordinary processes of this machine. For debugging only: do "
    "not run code that you have not read. Such verdicts are never used in a published version"
)

log = get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class RemotePlaces:
    """The pool's places as addresses of runners that others start."""

    pool: Pool
    backend_at: Callable[[str], Backend]
    """Returns the backend for an address."""

    @property
    def places(self) -> set[str]:
        """The addresses in use."""
        return self.pool.places

    def keep(self, address: str) -> None:
        """Start keeping the runner at an address."""
        self.pool.keep(address, self.backend_at(address))

    async def drop(self, address: str, drain_seconds: float) -> None:
        """Give up an address. Its runner may finish its jobs for at most `drain_seconds`."""
        await self.pool.drop(address, drain_seconds)


def make_pool(settings: SandboxSettings, dispatcher: Dispatcher, readiness: Readiness) -> Pool:
    """Create a pool without runners that updates the readiness."""
    isolated = settings.isolation == "gvisor"
    if not isolated:
        log.warning("isolation_is_off", reason=WITHOUT_ISOLATION)

    async def changed(reason: str) -> None:
        await readiness.set(not reason, reason or ("" if isolated else WITHOUT_ISOLATION))

    isolation = pb.ISOLATION_GVISOR if isolated else pb.ISOLATION_PROCESS
    return Pool(dispatcher, changed, isolation, patient=settings.backend == "grpc")


@contextlib.asynccontextmanager
async def filled(pool: Pool, settings: SandboxSettings) -> AsyncIterator[None]:
    """Run the pool's runners inside this context, and drain them at its end.

    Raises:
        ConfigurationError: This machine cannot have runners; the message says what to do.
    """
    finder = await _fill(pool, settings)
    try:
        yield
    finally:
        if finder is not None:
            finder.cancel()
        await pool.stop(settings.drain_seconds)


async def _fill(pool: Pool, settings: SandboxSettings) -> asyncio.Task[None] | None:
    if settings.backend == "grpc":
        target = discovery.parse(settings.runner_target, "CODEALIGN_SANDBOX_RUNNER_TARGET")
        tls = ClientTls(settings.runner_tls_ca_file, settings.runner_tls_cert_file, settings.runner_tls_key_file)
        tls.credentials()  # Report an unreadable file at start-up.
        name = settings.runner_tls_name or target.host

        def backend_at(address: str) -> Backend:
            return remote.RemoteBackend(address, tls, name, settings.start_seconds)

        places = RemotePlaces(pool, backend_at)
        finder = discovery.Discovery([target], places, settings.resolve_seconds, settings.drain_seconds)
        await pool.start()
        return asyncio.create_task(finder.run())
    backend = await asyncio.to_thread(_backend, settings)
    for index in range(settings.runners):
        pool.keep(str(index), backend)
    return None


def _backend(settings: SandboxSettings) -> Backend:
    arguments = (settings.cache_dir, settings.slots, settings.start_seconds)
    if settings.backend == "process":
        return process.prepare(*arguments)
    if settings.backend == "docker":
        return docker.prepare(*arguments, settings.image, settings.docker_runtime)
    return AutomaticPlatform(runsc.prepare(*arguments), settings.platform, settings.cache_dir, settings.runners)
