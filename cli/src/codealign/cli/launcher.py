"""Start the services of one machine in dependency order, keep them alive, and stop them in reverse order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from codealign.cli.child import Child, ServiceSpec, StartFailure
from codealign.cli.failures import Failure
from codealign.cli.home import Endpoint, Home
from codealign.common.errors import EXIT_CONFIGURATION

STOP_SECONDS = 15.0
"""Seconds from SIGTERM to SIGKILL: longer than the services' drain period."""


@dataclass(frozen=True)
class Event:
    """A state change of a service, for display."""

    service: str
    kind: str
    """"starting" (text: its current activity), "ready", "ended" or "stopped"."""
    text: str = ""
    seconds: float = 0.0
    """Seconds since the service was started."""
    endpoint: Endpoint | None = None


@dataclass(frozen=True)
class RestartPolicy:
    """Backoff and limits for restarting a service that died."""

    first_delay: float = 0.5
    """Seconds before the first restart; doubled after every failure in a row."""
    max_delay: float = 30.0
    failures: int = 6
    """Failures in a row after which the service is not restarted."""
    steady_seconds: float = 60.0
    """Seconds of uptime after which earlier failures are forgotten."""


class Launcher:
    """Starts, supervises and stops services.

    Args:
        home: Home directory of the services. The caller holds its lock.
        specs: The services.
        on_event: Called with every event.
        restart: Policy for restarting services that died.
    """

    def __init__(
        self,
        home: Home,
        specs: Sequence[ServiceSpec],
        on_event: Callable[[Event], None] = lambda _: None,
        restart: RestartPolicy | None = None,
    ) -> None:
        self._children = {spec.name: Child(spec, home) for spec in specs}
        self._on_event = on_event
        self._restart = restart or RestartPolicy()

    async def start(self) -> dict[str, Endpoint]:
        """Start all services; those that do not depend on each other start in parallel.

        Returns:
            The endpoint of each service.

        Raises:
            Failure: A service did not become ready. `stop` stops the others.
        """
        waiting = dict(self._children)
        while waiting:
            able = [child for child in waiting.values() if not set(child.spec.needs) & set(waiting)]
            if not able:
                raise Failure(f"circular dependency between services: {', '.join(waiting)}")
            try:
                async with asyncio.TaskGroup() as group:
                    for child in able:
                        group.create_task(self._bring_up(child))
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
            for child in able:
                del waiting[child.spec.name]
        return self.endpoints()

    def endpoints(self) -> dict[str, Endpoint]:
        """Return the endpoints of the services that have been ready."""
        return {name: child.endpoint for name, child in self._children.items() if child.endpoint is not None}

    async def _bring_up(self, child: Child) -> None:
        started = time.monotonic()
        name = child.spec.name

        def on_state(text: str) -> None:
            self._on_event(Event(name, "starting", text, time.monotonic() - started))

        addresses = {need: endpoint.address for need, endpoint in self.endpoints().items()}
        await child.start(addresses)
        on_state("")
        endpoint = await child.until_ready(on_state)
        self._on_event(Event(name, "ready", "", time.monotonic() - started, endpoint))

    async def supervise(self) -> NoReturn:
        """Restart services that die, until cancelled.

        Raises:
            Failure: A service keeps failing.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children.values():
                    group.create_task(self._keep_up(child))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        raise AssertionError("a service is watched for ever")

    async def _keep_up(self, child: Child) -> NoReturn:
        policy = self._restart
        failures = 0
        up_since = time.monotonic()
        while True:
            code = await child.wait()
            failures = 1 if time.monotonic() - up_since > policy.steady_seconds else failures + 1
            why = child.last_words()
            if code == EXIT_CONFIGURATION:
                raise Failure(why)
            if failures >= policy.failures:
                raise Failure(f"{why}; giving up after {failures} failures in a row")
            delay = min(policy.max_delay, policy.first_delay * 2 ** (failures - 1))
            self._on_event(Event(child.spec.name, "ended", f"{why}; restarting in {delay:.1f} s"))
            await asyncio.sleep(delay)
            up_since = time.monotonic()
            try:
                await self._bring_up(child)
            except StartFailure:
                # Either it has ended, which the next iteration sees, or it hangs.
                await child.stop(STOP_SECONDS)

    async def stop(self) -> None:
        """Stop all services, dependents first. If cancelled, kill those that are left."""
        try:
            left = {name: child for name, child in self._children.items() if child.alive}
            while left:
                used = {need for child in left.values() for need in child.spec.needs}
                last = [child for name, child in left.items() if name not in used]
                await asyncio.gather(*(child.stop(STOP_SECONDS) for child in last))
                for child in last:
                    self._on_event(Event(child.spec.name, "stopped"))
                    del left[child.spec.name]
        finally:
            for child in self._children.values():
                child.kill()
