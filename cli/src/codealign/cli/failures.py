"""What ends a command: one clear message, one exit code, no traceback."""

from __future__ import annotations

import grpc

from codealign.common.errors import describe

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Failure(Exception):
    """A command cannot go on. The message says what is wrong, where, and what to do.

    Args:
        message: For a person.
        exit_code: The process's.
    """

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Interrupted(Failure):
    """Ctrl-C or SIGTERM; what is left to say is in the message."""


def rpc_failure(error: grpc.aio.AioRpcError, service: str, address: str) -> Failure:
    """An RPC's error as a failure that names the service and says what to do.

    Args:
        error: What the call raised.
        service: The service's short name.
        address: Where it was called.
    """
    text = describe(error)
    where = f"{service} service at {address}"
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE and text.startswith("cannot reach"):
        return Failure(f"{where}: {text}. Is it up? `codealign up` starts every service on this machine")
    if code is grpc.StatusCode.UNIMPLEMENTED and not error.details():
        return Failure(f"{where}: it does not offer this call; is it another service, or an older one?")
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return Failure(f"{where}: internal error: {text}. Its log has the rest")
    return Failure(f"{where}: {text}")
