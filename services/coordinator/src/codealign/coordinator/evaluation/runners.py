"""Identity of the sandbox runners that results depend on: image, Python version, and the limits in their profiles."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import CodeAlignError, FailedPrecondition
from codealign.coordinator.evaluation.limits import CALLS_LIMITS, CHECK_LIMITS
from codealign.coordinator.ground import runners
from codealign.coordinator.ground.faults import TRANSIENT, RunStopped
from codealign.coordinator.ground.ports import Sandbox

_EXECUTIONS = {"calls": CALLS_LIMITS, "check": CHECK_LIMITS}
"""Limits that executions request, by kind of execution."""
_PAUSE_SECONDS = 1.0
"""Delay before a program that the wrong runner executed is executed again."""


@dataclass(frozen=True)
class RunnerIdentity:
    """Properties that two runners must share to judge solutions the same way."""

    image_digest: str
    python_version: str
    limits: str
    """JSON of the limits by profile and kind of execution, with the profile's defaults filled in."""

    @classmethod
    def of(cls, runner: sb.Runner) -> RunnerIdentity:
        """Return the identity of a runner."""
        limits = {
            name: {kind: _resolved(wanted, each.defaults) for kind, wanted in _EXECUTIONS.items()}
            for name, each in _used_profile(runner).items()
        }
        return cls(runner.image_digest, runner.python_version, json.dumps(limits, sort_keys=True))

    def settings(self) -> dict[str, Any]:
        """Return the identity in the form used in an evaluation's configuration."""
        return {
            "image_digest": self.image_digest,
            "limits": json.loads(self.limits),
            "python_version": self.python_version,
        }


async def current(sandbox: Sandbox) -> RunnerIdentity:
    """Return the identity of the current runners; if they differ, that with the most slots.

    Raises:
        Unavailable: The sandbox is unavailable, or no runner is ready.
        FailedPrecondition: A profile does not allow the limits that evaluations need; the message names each of them.
    """
    ready = runners.ready((await sandbox.get_runner(sb.GetRunnerRequest())).runners)
    runner, _ = runners.prevailing(ready, RunnerIdentity.of)
    if low := [text for name, each in _used_profile(runner).items() for text in _too_low(name, each.maxima)]:
        raise FailedPrecondition(f"sandbox: evaluations need higher limits: {'; '.join(low)}")
    return RunnerIdentity.of(runner)


class RunnerCheck:
    """Check that results come from the runners that an evaluation depends on.

    Args:
        sandbox: Queried once per runner.
        wanted: Required identity of the runners.
    """

    def __init__(self, sandbox: Sandbox, wanted: RunnerIdentity) -> None:
        self._sandbox, self._wanted = sandbox, wanted
        self._passed: set[str] = set()
        self.key = json.dumps(wanted.settings(), sort_keys=True)
        """Cache key of these runners' results."""

    async def passes(self, result: sb.Result) -> bool:
        """Return whether a result comes from a matching runner, or from none (the gateway refused the program)."""
        if result.verdict == sb.VERDICT_REFUSED:
            return True
        if result.image_digest != self._wanted.image_digest:
            return False
        if result.runner in self._passed:
            return True
        try:
            answer = await self._sandbox.get_runner(sb.GetRunnerRequest(name=result.runner))
        except CodeAlignError:
            return True  # the runner is gone or cannot be queried: rely on the image digest
        if any(each.name == result.runner and RunnerIdentity.of(each) != self._wanted for each in answer.runners):
            return False
        self._passed.add(result.runner)
        return True

    async def require_current(self) -> None:
        """Wait before a program is executed again.

        Raises:
            RunStopped: Most slots now belong to other runners: the evaluation must start again with those.
        """
        try:
            now = await current(self._sandbox)
        except TRANSIENT:
            now = self._wanted
        if now != self._wanted:
            raise RunStopped("the sandbox's runners have changed")
        await asyncio.sleep(_PAUSE_SECONDS)


def _used_profile(runner: sb.Runner) -> dict[str, sb.ProfileLimits]:
    """Return the profile that executions use, the runner's first one, by its name; nothing if the runner has none."""
    return {each.profile: each for each in runner.profile_limits[:1]}


def _resolved(wanted: sb.Limits, defaults: sb.Limits) -> dict[str, float]:
    values = {
        field.name: getattr(wanted, field.name) or getattr(defaults, field.name)
        for field in sb.Limits.DESCRIPTOR.fields
    }
    return {name: value for name, value in values.items() if value}


def _too_low(profile: str, maxima: sb.Limits) -> list[str]:
    needed = {
        field.name: max(getattr(wanted, field.name) for wanted in _EXECUTIONS.values())
        for field in sb.Limits.DESCRIPTOR.fields
    }
    return [
        f"profile {profile!r} allows {name} up to {most:g}, must be at least {value:g}"
        for name, value in needed.items()
        if (most := getattr(maxima, name)) and value > most
    ]
