"""Executions while runners are killed: every one gets the right verdict, and nothing is left on the machine.

    .venv/bin/python -m tests.chaos.kill_runners [--executions 2000] [--every 4] [--callers 4] [--runners 2]

Every few seconds SIGKILL strikes a runner, by turns all of its processes, the one that the gateway started, and the one
that holds the sandbox. The time counts from when a slot is there again, and what is struck may be a runner that just
starts. Goes on until there were so many executions and so many kills; then all slots must come back. Ends with 1 where
a verdict was wrong or something is left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.sandbox.tests.conftest import Gateway
from tests import gateways
from tests.chaos.load import Item, Load, Tally, ordinary
from tests.hostile.host import Host, descendants

WAYS = ("all of its processes", "the process that the gateway started", "the sandbox's process")
_POLL_SECONDS = 0.05
_LINES = 20


@dataclass
class Kills:
    """Result of the test."""

    tally: Tally = field(default_factory=Tally)
    kills: int = 0
    failed_attempts: int = 0
    back_seconds: float = 0.0
    """Seconds until all slots were available again after the end."""
    left: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether every verdict was right and nothing is left."""
        return not (self.tally.wrong or self.left)


def _is_sandbox(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "boot" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return False


def _strike(gateway: Gateway, way: str, dice: random.Random) -> str:
    """Kill a runner and return what was killed, or "" if there is no runner right now."""
    trees = gateway.children()
    if not trees:
        return ""
    root = dice.choice(trees)
    victims = {root, *descendants(root)}
    if way == WAYS[1]:
        victims = {root}
    elif way == WAYS[2]:
        victims = {pid for pid in victims if _is_sandbox(pid)}
    struck = 0
    with contextlib.ExitStack() as stack:
        handles = []
        for pid in victims:
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                handles.append((pid, handle))
        # The process id may have been reused by another process; a handle cannot.
        below = descendants(gateway.process.pid)
        for pid, handle in handles:
            if pid in below:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    struck += 1
    return f"{way} of runner {root} ({struck} processes)" if struck else ""


def run(executions: int, kills: int, every: float, callers: int, runners: int, seed: int, cache: Path) -> Kills:
    """Execute programs, kill runners, and print the progress.

    Args:
        executions: At least so many.
        kills: At least so many.
        every: Seconds between two kills, on average.
        callers: At once.
        runners: gVisor sandboxes, with one slot each.
        seed: Of whom it strikes, and when.
        cache: See `gateways.own_cache`.
    """
    found = Kills()
    tally, dice = found.tally, random.Random(seed)
    ways = itertools.cycle(WAYS)

    def items() -> Iterator[Item]:
        for number in itertools.count():
            if number >= executions and found.kills >= kills:
                return
            yield ordinary(number)

    print(f"{executions} executions, {callers} callers, {runners} runners, a kill every {every:g} s, seed {seed}")
    with gateways.started(cache, runners, 1) as gateway:
        host = Host(gateway.process.pid, cache)
        load = Load(gateway, items(), callers, tally.take)
        try:
            strike_at, printed = time.monotonic() + every * dice.uniform(0.5, 1.5), 0
            while load.wait(_POLL_SECONDS):
                if time.monotonic() >= strike_at and (struck := _strike(gateway, next(ways), dice)):
                    found.kills += 1
                    print(f"  kill {found.kills}: {struck}", flush=True)
                    strike_at = math.inf
                if strike_at == math.inf and gateway.capacity().slots:
                    strike_at = time.monotonic() + every * dice.uniform(0.5, 1.5)
                if tally.done - printed >= executions / _LINES:
                    rate = tally.rate(printed, tally.done)
                    print(f"{tally.done:6} ended  {rate:6.1f}/s  wrong {len(tally.wrong)}", flush=True)
                    printed = tally.done
            ended = time.monotonic()
            gateways.wait_whole(gateway, runners)
            found.back_seconds = time.monotonic() - ended
            found.failed_attempts = gateway.log.read_text().count('"attempt_failed"')
            found.left += host.changes()
        finally:
            load.stop()
    tally.asked_again = load.asked_again
    found.left += gateways.patient(host.remains)
    host.close()
    return found


def report(found: Kills) -> None:
    """Print the result."""
    tally = found.tally
    print("\nverdicts: " + ", ".join(f"{name} {count}" for name, count in tally.verdicts.most_common()))
    print(f"kills: {found.kills}; attempts lost and begun again: {found.failed_attempts}; runners that served: "
          f"{len(tally.runners)}; callers told to come back: {tally.asked_again}")  # fmt: skip
    print(f"all slots back after {found.back_seconds:.1f} s; {tally.rate(0, tally.done):.1f} executions per second")
    for line in found.left:
        print(f"LEFT: {line}")
    print(f"wrong verdicts: {len(tally.wrong)} of {tally.done}")


def main() -> int:
    """Run the test and return whether everything was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=10, help="at least so many")
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two kills, on average")
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--runners", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runsc", type=Path, help="another runsc than the one that a gateway finds")
    given = parser.parse_args()
    gateways.end_by_signals()
    with gateways.own_cache(given.runsc) as cache:
        found = run(given.executions, given.kills, given.every, given.callers, given.runners, given.seed, cache)
    report(found)
    return 0 if found.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
