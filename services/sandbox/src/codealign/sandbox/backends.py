"""Creates runners according to the settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.clients import ClientTls
from codealign.common.logs import get_logger
from codealign.common.server import Readiness
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.platforms import AutomaticPlatform
from codealign.sandbox.pool import Backend, Pool
from codealign.sandbox.runners import discovery, docker, process, remote, runsc
from codealign.sandbox.settings import SandboxSettings

WITHOUT_ISOLATION = (
    "isolation=process: programs run WITHOUT gVisor, as ordinary processes of this machine. For debugging only: do "
    "not run code that you have not read. Such verdicts are never used in a published version"
)

log = get_logger(__name__)


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
        target = discovery.parse(settings.runner_target)
        tls = ClientTls(settings.runner_tls_ca_file, settings.runner_tls_cert_file, settings.runner_tls_key_file)
        tls.credentials()  # Report an unreadable file at start-up.
        name = settings.runner_tls_name or target.host

        def backend_at(address: str) -> Backend:
            return remote.RemoteBackend(address, tls, name, settings.start_seconds)

        finder = discovery.Discovery(target, pool, backend_at, settings.resolve_seconds, settings.drain_seconds)
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
    return AutomaticPlatform(runsc.prepare(*arguments), settings.platform, settings.cache_dir)
