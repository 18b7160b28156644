"""Many executions through a real gateway, some hostile: all verdicts right, no memory leak, no slowdown.

    .venv/bin/python -m tests.chaos.soak [--executions 20000] [--callers 4] [--runners 2] [--slots 1]

Prints every 5%: executions per second since the last line; then the memory of the gateway and of each runner in MiB,
as resident with shared pages once / resident / gVisor's memory file. Ends with 1 where a verdict was wrong or something
is left on the machine; memory and speed it only tells, first tenth against last, after a warm-up of a tenth.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests import gateways
from tests.chaos import hostile, memory
from tests.chaos.load import Load, Tally, mixed
from tests.chaos.memory import MIB, Look
from tests.hostile.host import Host

_LOOKS = 200
"""Number of memory measurements, spread evenly over all executions."""
_LINES = 20
_WARM_UP = 0.1
_TELLING = 2000
"""Minimum number of executions for conclusions about trends."""
_POLL_SECONDS = 0.05


@dataclass
class Soak:
    """Result of the test."""

    tally: Tally = field(default_factory=Tally)
    looks: list[Look] = field(default_factory=list)
    failed_attempts: int = 0
    """Executions that a runner lost and that were retried."""
    left: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether every verdict was right and nothing is left."""
        return not (self.tally.wrong or self.left)


def run(executions: int, callers: int, runners: int, slots: int, share: float, seed: int, cache: Path) -> Soak:
    """Execute programs and print the progress.

    Args:
        executions: How many.
        callers: At once.
        runners: gVisor sandboxes.
        slots: Executions at once in each.
        share: Of hostile programs.
        seed: Of the draw.
        cache: See `gateways.own_cache`.
    """
    soak = Soak()
    tally = soak.tally
    chosen = hostile.quick()
    print(f"{executions} executions, {callers} callers, {runners} runners × {slots} slots, seed {seed}; "
          f"{share:.0%} hostile, drawn from {len(chosen)} programs")  # fmt: skip
    with gateways.started(cache, runners, slots) as gateway:
        host = Host(gateway.process.pid, cache)
        load = Load(gateway, mixed(executions, chosen, share, seed), callers, tally.take)
        try:
            printed = 0
            works = True
            while works:
                works = load.wait(_POLL_SECONDS)
                if tally.done >= len(soak.looks) * executions / _LOOKS:
                    soak.looks.append(memory.look(gateway, tally.done))
                if tally.done - printed >= executions / _LINES:
                    _print_line(tally, printed, executions, soak.looks[-1])
                    printed = tally.done
            soak.failed_attempts = gateway.log.read_text().count('"attempt_failed"')
            soak.left += host.changes()
        finally:
            load.stop()
    tally.asked_again = load.asked_again
    soak.left += gateways.patient(host.remains)
    host.close()
    return soak


def _print_line(tally: Tally, since: int, executions: int, now: Look) -> None:
    runners = "  ".join(str(tree) for tree in now.runners.values())
    print(
        f"{tally.done / executions:4.0%}  {tally.rate(since, tally.done):6.1f}/s  gateway {now.gateway}  "
        f"runners {runners}  wrong {len(tally.wrong)}",
        flush=True,
    )


def report(soak: Soak, runners: int) -> None:
    """Print the result."""
    tally = soak.tally
    begin = int(tally.done * _WARM_UP)
    tenth = max(2, (tally.done - begin) // 10)
    first, last = tally.rate(begin, begin + tenth), tally.rate(tally.done - tenth, tally.done)
    print("\nverdicts: " + ", ".join(f"{name} {count}" for name, count in tally.verdicts.most_common()))
    print(f"runners that served: {len(tally.runners)} (wanted {runners}); attempts lost: {soak.failed_attempts}; "
          f"callers told to come back: {tally.asked_again}")  # fmt: skip
    print(f"per second, first tenth after the warm-up: {first:.1f}; last tenth: {last:.1f}; ratio {last / first:.2f}")
    settled = [each for each in soak.looks if each.done >= begin]
    for name, (before, after) in memory.growth(settled, runners).items():
        grown = (after - before) / MIB
        in_many = f", {grown / (tally.done - begin) * 10_000:+.1f} in 10,000" if tally.done >= _TELLING else ""
        print(f"{name}: {before / MIB:.1f} MiB, then {after / MIB:.1f} MiB: {grown:+.1f} MiB{in_many}")
    for line in soak.left:
        print(f"LEFT: {line}")
    print(f"wrong verdicts: {len(tally.wrong)} of {tally.done}")


def main() -> int:
    """Run the test and return whether everything was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--runners", type=int, default=2)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--hostile", type=float, default=0.02, help="share of hostile programs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runsc", type=Path, help="another runsc than the one that a gateway finds")
    given = parser.parse_args()
    gateways.end_by_signals()
    with gateways.own_cache(given.runsc) as cache:
        soak = run(given.executions, given.callers, given.runners, given.slots, given.hostile, given.seed, cache)
    report(soak, given.runners)
    return 0 if soak.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
