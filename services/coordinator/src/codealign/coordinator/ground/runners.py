"""The sandbox's runners that verdicts rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import Unavailable


def ready(runners: Sequence[sb.Runner]) -> list[sb.Runner]:
    """Return the runners that take work.

    Raises:
        Unavailable: None does; the message names the state of each.
    """
    found = [runner for runner in runners if runner.state == sb.RUNNER_STATE_READY]
    if not found:
        states = ", ".join(f"{runner.name}: {_state(runner)}" for runner in runners) or "there is none"
        raise Unavailable(f"sandbox: no runner is ready ({states}): start one, or wait until it is", retry_after=5.0)
    return found


def image_and_python(runner: sb.Runner) -> tuple[str, str]:
    """Return the identity of a runner's image: its digest, and the Python version in it."""
    return runner.image_digest, runner.python_version


def prevailing(
    runners: Sequence[sb.Runner], identity: Callable[[sb.Runner], Hashable] = image_and_python
) -> tuple[sb.Runner, bool]:
    """Return a runner of the identity that most slots belong to, and whether all runners have that identity.

    Runners differ during a rollout. Of identities with as many slots, the higher Python version is preferred, then the
    greater image digest.

    Args:
        runners: At least one.
        identity: What must be the same in two runners so that they give the same verdicts.
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
