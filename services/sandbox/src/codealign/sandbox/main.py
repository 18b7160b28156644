"""Starts the sandbox gateway."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from codealign.api.sandbox.v1.sandbox_pb2_grpc import add_SandboxServiceServicer_to_server
from codealign.common.server import Readiness, Registration, serve
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.platforms import AutomaticPlatform
from codealign.sandbox.pool import Pool
from codealign.sandbox.runners import runsc
from codealign.sandbox.servicer import SandboxServicer
from codealign.sandbox.settings import SandboxSettings


@contextlib.asynccontextmanager
async def build(settings: SandboxSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Wires the gateway; runners start in the background, and readiness follows them."""
    await readiness.set(False, "the first runner is starting")
    backend = await asyncio.to_thread(
        runsc.prepare, settings.cache_dir, settings.profile, settings.slots, settings.start_seconds
    )
    dispatcher = Dispatcher(settings.queue_limit, settings.attempts)
    starter = AutomaticPlatform(backend, settings.platform, settings.cache_dir)
    pool = Pool(starter, settings.runners, dispatcher, lambda reason: readiness.set(not reason, reason))
    pool.start()
    try:
        servicer = SandboxServicer(dispatcher, pool, settings.profile, settings.stream_window)
        yield [Registration("codealign.api.sandbox.v1.SandboxService", add_SandboxServiceServicer_to_server, servicer)]
    finally:
        await pool.stop(settings.drain_seconds)


def main() -> None:
    """The program `codealign-sandbox`."""
    serve("sandbox", SandboxSettings, build)


if __name__ == "__main__":
    main()
