"""Classification of other services' errors: retry, refuse one item, or fail the work."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from codealign.common.errors import (
    CodeAlignError,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from codealign.common.logs import get_logger
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.waiting import Waiting

log = get_logger(__name__)

TRANSIENT = (Unavailable, ResourceExhausted, DeadlineExceeded)
"""Temporary errors: the call is retried without limit."""
INTERNAL_TRIES = 5
"""Tries for an internal error of a service, since a restart may fix it."""
ODD_TRIES = 10
"""Tries for an internal error while the service answers other requests: the fault may affect this item only."""
HANG_TRIES = 3
"""Consecutive deadlines of one request without any answer, while the service answers others, before it is given up."""
OF_THE_PROMPT = frozenset({"", "prompt", "chat", "input"})
"""Fields of an inference request whose violation concerns one prompt. Violations of other fields concern settings,
which are the same for every prompt."""
_FIRST_DELAY = 0.2
_MAX_DELAY = 5.0
"""Seconds. A longer delay requested by the service is honored, up to _MAX_ASKED."""
_MAX_ASKED = 60.0


class RunFailed(Exception):
    """The work cannot continue without manual intervention; the message says why and what to do."""


class Faulty(RunFailed):
    """The service kept failing on this one request with internal errors, or did not answer it in time."""


@dataclass
class Tries:
    """Tries of one call since its last progress."""

    made: int = 0
    faults: int = 0
    """Tries that ended in an internal error of the service. Outages in between do not count."""

    def saw(self, error: CodeAlignError) -> bool:
        """Count a try that ended in an error and return whether it is an internal error of the service."""
        internal = isinstance(error, Internal) or type(error) is CodeAlignError
        self.made += 1
        self.faults += internal
        return internal


class RunStopped(Exception):
    """The work was paused or the coordinator is draining: nothing new may start."""


class Refused(Exception):
    """The service will never accept this one request; `field` is the path of the violated field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


async def absorb(
    error: CodeAlignError,
    tries: Tries,
    tally: StageTally,
    service: str,
    waiting: Waiting | None = None,
    *,
    most_faults: int = INTERNAL_TRIES,
) -> None:
    """Wait before another try, or raise an error that classifies the fault.

    Args:
        error: The error that the call raised.
        tries: Tries of this call; the error is counted.
        tally: Counts the retry.
        service: Service name for messages, such as "inference".
        waiting: Records that the service is unavailable. The caller clears it when the service answers.
        most_faults: Internal errors of the service after which the call is given up.

    Raises:
        Refused: The request is refused because of its contents.
        RunFailed: Retrying cannot help; `Faulty` for an internal error of the service.
    """
    internal = tries.saw(error)
    if isinstance(error, InvalidArgument):
        raise Refused(error.violations[0][0] if error.violations else "", error.message) from error
    if not isinstance(error, TRANSIENT) and not (internal and tries.faults < most_faults):
        text = error.message if error.message.startswith(f"{service}: ") else f"{service}: {error.message}"
        raise (Faulty if internal else RunFailed)(text) from error
    tally.retry()
    if waiting is not None and isinstance(error, Unavailable | DeadlineExceeded):
        waiting.begin(f"the {service} service", error.message)
    wanted = delay(tries.made, error)
    log.info("service_retry", service=service, error=type(error).__name__, tried=tries.made, delay=round(wanted, 2))
    await asyncio.sleep(wanted)


def delay(tried: int, error: CodeAlignError) -> float:
    """Return the seconds until another try: the requested delay or the backoff, whichever is longer, with jitter."""
    asked = min(getattr(error, "retry_after", 0.0), _MAX_ASKED)
    backoff = min(_MAX_DELAY, _FIRST_DELAY * 2.0 ** min(tried - 1, 16))
    return max(asked, backoff) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


def decisive_error(error: BaseException) -> BaseException:
    """Return the most significant error in nested exception groups: any other error before RunFailed and RunStopped."""
    leaves = [error]
    while any(isinstance(each, BaseExceptionGroup) for each in leaves):
        leaves = [
            inner for each in leaves for inner in (each.exceptions if isinstance(each, BaseExceptionGroup) else [each])
        ]
    return min(leaves, key=lambda each: (isinstance(each, RunStopped), isinstance(each, RunFailed)))
