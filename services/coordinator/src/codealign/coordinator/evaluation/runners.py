"""What an evaluation's results rest on at the sandbox: runner image, Python version, and the limits in its profiles."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import CodeAlignError, FailedPrecondition
from codealign.coordinator.evaluation.limits import CALLS_LIMITS, CHECK_LIMITS, NUMPY
from codealign.coordinator.ground import runners
from codealign.coordinator.ground.faults import TRANSIENT, RunStopped
from codealign.coordinator.ground.ports import Sandbox

_EXECUTIONS = {"calls": CALLS_LIMITS, "check": CHECK_LIMITS}
"""The limits that executions ask for, by the kind of execution."""
_PAUSE_SECONDS = 1.0
"""Before a program is executed again that the wrong runner had taken."""


@dataclass(frozen=True)
class RunnerIdentity:
    """What two runners must share so that a solution is judged alike by both."""

    image_digest: str
    python_version: str
    limits: str
    """JSON: by profile and kind of execution, the limits with the profile's defaults filled in."""

    @classmethod
    def of(cls, runner: sb.Runner) -> RunnerIdentity:
        """Return the identity of a runner."""
        limits = {
            name: {kind: _resolved(wanted, each.defaults) for kind, wanted in _EXECUTIONS.items()}
            for name, each in _used_profiles(runner).items()
        }
        return cls(runner.image_digest, runner.python_version, json.dumps(limits, sort_keys=True))

    def settings(self) -> dict[str, Any]:
        """Return the identity as a part of an evaluation's configuration."""
        return {
            "image_digest": self.image_digest,
            "limits": json.loads(self.limits),
            "python_version": self.python_version,
        }


async def current(sandbox: Sandbox) -> RunnerIdentity:
    """Return the identity of the runners that are there now; where they differ, of those with most slots.

    Raises:
        Unavailable: The sandbox is away, or no runner is ready.
        FailedPrecondition: A profile does not allow the limits that evaluations need; names each of them.
    """
    ready = runners.ready((await sandbox.get_runner(sb.GetRunnerRequest())).runners)
    runner, _ = runners.prevailing(ready, RunnerIdentity.of)
    if low := [text for name, each in _used_profiles(runner).items() for text in _too_low(name, each.maxima)]:
        raise FailedPrecondition(f"sandbox: evaluations need higher limits: {'; '.join(low)}")
    return RunnerIdentity.of(runner)


class RunnerCheck:
    """Tells results of the runners that an evaluation rests on from those of other ones.

    Args:
        sandbox: Asked once about each runner.
        wanted: What the results rest on.
    """

    def __init__(self, sandbox: Sandbox, wanted: RunnerIdentity) -> None:
        self._sandbox, self._wanted = sandbox, wanted
        self._passed: set[str] = set()
        self.key = json.dumps(wanted.settings(), sort_keys=True)
        """Tells the runners' results from those of other ones."""

    async def passes(self, result: sb.Result) -> bool:
        """Return whether a result comes from such a runner. A program that the gateway refuses reached none."""
        if result.verdict == sb.VERDICT_REFUSED:
            return True
        if result.image_digest != self._wanted.image_digest:
            return False
        if result.runner in self._passed:
            return True
        try:
            answer = await self._sandbox.get_runner(sb.GetRunnerRequest(name=result.runner))
        except CodeAlignError:
            return True  # it is gone, or cannot be asked now: its image says as much
        if any(each.name == result.runner and RunnerIdentity.of(each) != self._wanted for each in answer.runners):
            return False
        self._passed.add(result.runner)
        return True

    async def require_current(self) -> None:
        """Wait before a program is executed again.

        Raises:
            RunStopped: Most slots belong to other runners by now: the evaluation must begin again with those.
        """
        try:
            now = await current(self._sandbox)
        except TRANSIENT:
            now = self._wanted
        if now != self._wanted:
            raise RunStopped("the sandbox has other runners by now")
        await asyncio.sleep(_PAUSE_SECONDS)


def _used_profiles(runner: sb.Runner) -> dict[str, sb.ProfileLimits]:
    """Return the profiles that executions may name: the first of the runner, and `NUMPY`."""
    return {
        each.profile: each
        for position, each in enumerate(runner.profile_limits)
        if position == 0 or each.profile == NUMPY
    }


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
