"""The inference server."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from codealign.api.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from codealign.common.server import Readiness, Registration, serve
from codealign.inference.opening import open_in_thread
from codealign.inference.servicer import InferenceServicer
from codealign.inference.settings import CommandLineSettings, InferenceSettings

SERVICE = "codealign.api.inference.v1.InferenceService"


@asynccontextmanager
async def build(settings: InferenceSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Load the model; meanwhile the server is alive and not ready."""
    await readiness.set(False, f"loading model {settings.model}")
    engine = await open_in_thread(settings)
    try:
        await readiness.set(False, "starting")  # the server itself says when it listens
        yield [Registration(SERVICE, add_InferenceServiceServicer_to_server, InferenceServicer(engine))]
    finally:
        await engine.close()


def main() -> None:
    """Serve until told to stop."""
    serve("inference", CommandLineSettings, build)


if __name__ == "__main__":
    main()
