"""Errors that end a command: one clear message and an exit code, without a traceback."""

from __future__ import annotations

import grpc

from codealign.common.errors import describe

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Failure(Exception):
    """A command cannot continue. The message says what is wrong, where, and what to do.

    Args:
        message: Message for the user.
        exit_code: Exit code of the process.
    """

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Interrupted(Failure):
    """The command was stopped by Ctrl-C or SIGTERM. The message says what happens next."""


def rpc_failure(error: grpc.aio.AioRpcError, service: str, address: str) -> Failure:
    """Return an RPC error as a failure that names the service and says what to do.

    Args:
        error: The error of the call.
        service: The service's short name.
        address: The address that was called.
    """
    text = describe(error)
    where = f"{service} service at {address}"
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE and text.startswith("cannot reach"):
        return Failure(f"{where}: {text}. Is it running? `codealign up` starts every service on this machine")
    if code is grpc.StatusCode.UNIMPLEMENTED and not error.details():
        return Failure(f"{where}: it does not implement this call; is it another service, or an older version?")
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return Failure(f"{where}: internal error: {text}. See its log")
    return Failure(f"{where}: {text}")
