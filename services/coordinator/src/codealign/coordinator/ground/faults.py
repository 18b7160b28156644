"""What an error of another service means for a piece of work."""

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
"""Errors that pass: the call is made again, for however long."""
INTERNAL_TRIES = 5
"""An error of the service's own is tried so often, since a restart may mend it."""
ODD_TRIES = 10
"""Likewise where the service answers other requests: the fault may be in this one, and is that item's alone then."""
HANG_TRIES = 3
"""Consecutive attempts at one request that end at the deadline without any answer, while the service answers others."""
OF_THE_PROMPT = frozenset({"", "prompt", "chat", "input"})
"""Fields of a request to inference whose violation is about one prompt. Another field's is about settings, which are
the same for every prompt."""
_FIRST_DELAY = 0.2
_MAX_DELAY = 5.0
"""Seconds. A longer delay that a service asked for is kept, up to _MAX_ASKED."""
_MAX_ASKED = 60.0


class RunFailed(Exception):
    """The work cannot go on without a person; the message says why and what to do."""


class Faulty(RunFailed):
    """The service kept answering this one request with an error of its own, or did not answer it in time."""


@dataclass
class Tries:
    """Of one call, since the last one that had any effect."""

    made: int = 0
    faults: int = 0
    """Those that ended in an error of the service's own. An outage in between counts for nothing."""

    def saw(self, error: CodeAlignError) -> bool:
        """A try ended in an error; whether it is one of the service's own."""
        internal = isinstance(error, Internal) or type(error) is CodeAlignError
        self.made += 1
        self.faults += internal
        return internal


class RunStopped(Exception):
    """The work was paused or the coordinator drains: nothing new is started."""


class Refused(Exception):
    """The service will never carry out this one request; `field` is the violated field's path."""

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
    """Wait before another try, or raise what the error means.

    Args:
        error: What the call raised.
        tries: Of this call; the error is counted.
        tally: Counts the retry.
        service: Named in messages: "inference".
        waiting: Told that a service is away. The caller says when it is back.
        most_faults: So many errors of the service's own are tried again, less one.

    Raises:
        Refused: The request is refused for what it holds.
        RunFailed: An error that another try cannot mend; `Faulty` where it is the service's own.
    """
    internal = tries.saw(error)
    if isinstance(error, InvalidArgument):
        raise Refused(error.violations[0][0] if error.violations else "", error.message) from error
    if not isinstance(error, TRANSIENT) and not (internal and tries.faults < most_faults):
        text = error.message if error.message.startswith(f"{service}: ") else f"{service}: {error.message}"
        raise (Faulty if internal else RunFailed)(text) from error
    tally.retries += 1
    if waiting is not None and isinstance(error, Unavailable | DeadlineExceeded):
        waiting.begin(f"the {service} service", error.message)
    wanted = delay(tries.made, error)
    log.info("service_retry", service=service, error=type(error).__name__, tried=tries.made, delay=round(wanted, 2))
    await asyncio.sleep(wanted)


def delay(tried: int, error: CodeAlignError) -> float:
    """Seconds before another try: what the service asked for, or longer after several tries, half of it random."""
    asked = min(getattr(error, "retry_after", 0.0), _MAX_ASKED)
    backoff = min(_MAX_DELAY, _FIRST_DELAY * 2.0 ** min(tried - 1, 16))
    return max(asked, backoff) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


def decisive_error(error: BaseException) -> BaseException:
    """The error in nested exception groups that says most: what needs a person comes before what stopped for it."""
    leaves = [error]
    while any(isinstance(each, BaseExceptionGroup) for each in leaves):
        leaves = [
            inner for each in leaves for inner in (each.exceptions if isinstance(each, BaseExceptionGroup) else [each])
        ]
    return min(leaves, key=lambda each: (isinstance(each, RunStopped), isinstance(each, RunFailed)))
