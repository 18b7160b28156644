"""Selection of the sandbox runners that verdicts are based on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import Unavailable


def ready(runners: Sequence[sb.Runner]) -> list[sb.Runner]:
    """Return the runners that accept work.

    Raises:
        Unavailable: No runner does; the message names the state of each.
    """
    found = [runner for runner in runners if runner.state == sb.RUNNER_STATE_READY]
    if not found:
        states = ", ".join(f"{runner.name}: {_state(runner)}" for runner in runners) or "none registered"
        raise Unavailable(f"sandbox: no runner is ready ({states}): start one, or wait until one is", retry_after=5.0)
    return found


def image_and_python(runner: sb.Runner) -> tuple[str, str]:
    """Return the identity of a runner's image: its digest and Python version."""
    return runner.image_digest, runner.python_version


def prevailing(
    runners: Sequence[sb.Runner], identity: Callable[[sb.Runner], Hashable] = image_and_python
) -> tuple[sb.Runner, bool]:
    """Return a runner with the identity that most slots have, and whether all runners share that identity.

    Runners differ during a rollout. Ties are broken by the higher Python version, then by the greater image digest.

    Args:
        runners: At least one runner.
        identity: Returns what must be equal for two runners to give the same verdicts.
    """
    slots: Counter[Hashable] = Counter()
    for runner in runners:
        slots[identity(runner)] += max(1, runner.slots)
    chosen = max(runners, key=lambda each: (slots[identity(each)], _numbers(each.python_version), each.image_digest))
    return chosen, len(slots) == 1


def _state(runner: sb.Runner) -> str:
    return sb.RunnerState.Name(runner.state).removeprefix("RUNNER_STATE_").lower()


def _numbers(python_version: str) -> Sequence[int]:
    return [int(part) for part in python_version.split(".") if part.isdigit()]
