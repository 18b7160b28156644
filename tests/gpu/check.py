"""What only a GPU can show, within a rented hour: `make test-gpu` takes at most 12 minutes on one GPU.

Each part is a file of tests with a limit of its own, run as a process, so that a part that hangs costs its limit and
not the hour. The table at the end has every test with its seconds, and why it was skipped. The exit code is 1 if a test
failed or a part ran out of time.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
BUDGET_SECONDS = 720.0
FEWEST_SECONDS = 20.0
"""With less left, a part is not started."""
_DETAIL_CHARS = 110


@dataclass(frozen=True, slots=True)
class Part:
    """A file of tests."""

    name: str
    path: str
    """Relative to the repository."""
    limit: float
    """Seconds."""


PARTS = (
    Part("vllm", "tests/gpu/test_vllm.py", 440),
    Part("transformers", "tests/gpu/test_transformers.py", 120),
    Part("training", "tests/gpu/test_training.py", 220),
)
"""The most informative first, because what comes last is cut if time runs out."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    part: str
    test: str
    result: str
    """passed, failed, skipped or timed out."""
    seconds: float
    detail: str = ""


Run = Callable[[Part, Path, float], bool]
"""Runs a part's tests within a limit and writes their JUnit file; returns whether it ended by itself."""


def check(parts: Sequence[Part], run: Run, budget: float = BUDGET_SECONDS) -> list[Row]:
    """Run the parts one after the other and return the table's rows.

    Args:
        parts: What to run.
        run: How.
        budget: Seconds for everything.
    """
    end = time.monotonic() + budget
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            left = end - time.monotonic()
            if left < FEWEST_SECONDS:
                rows.append(Row(part.name, "", "skipped", 0.0, f"{max(0.0, left):.0f} s of {budget:.0f} s are left"))
                continue
            junit, limit = Path(folder) / f"{part.name}.xml", min(part.limit, left)
            began = time.monotonic()
            ended = run(part, junit, limit)
            seconds = time.monotonic() - began
            if not ended:
                rows.append(
                    Row(part.name, "", "timed out", seconds, f"its limit is {limit:.0f} s; see its output above")
                )
            elif not junit.exists():
                rows.append(Row(part.name, "", "failed", seconds, "pytest did not start; see its output above"))
            else:
                rows += rows_of(part.name, junit.read_text(encoding="utf-8"))
    return rows


def rows_of(part: str, junit: str) -> list[Row]:
    """Return the rows of a part from pytest's JUnit file."""
    rows = []
    for case in ElementTree.fromstring(junit).iter("testcase"):
        result, detail = "passed", ""
        for kind, found in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            if (element := case.find(kind)) is not None:
                result, detail = found, element.get("message", "")
        for told in case.iter("property"):
            if told.get("name") == "detail":
                detail = told.get("value", "") if result == "passed" else detail
        rows.append(Row(part, case.get("name", ""), result, float(case.get("time", 0)), " ".join(detail.split())))
    return rows or [Row(part, "", "failed", 0.0, "no test was collected")]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    head = ("part", "test", "result", "seconds", "detail")
    cells = [(row.part, row.test, row.result, f"{row.seconds:.1f}", row.detail[:_DETAIL_CHARS]) for row in rows]
    widths = [max(len(line[at]) for line in (head, *cells)) for at in range(len(head))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *cells)
    ]
    total = sum(row.seconds for row in rows)
    counts = {kind: sum(row.result == kind for row in rows) for kind in ("passed", "failed", "skipped", "timed out")}
    return "\n".join(
        [*lines, "", ", ".join(f"{count} {kind}" for kind, count in counts.items()) + f" in {total:.0f} s"]
    )


def failed(rows: Sequence[Row]) -> bool:
    """Return whether the check as a whole failed. Skips are no failure: each says why."""
    return any(row.result in ("failed", "timed out") for row in rows)


def pytest_run(arguments: Sequence[str]) -> Run:
    """Return the way to run a part with pytest.

    Args:
        arguments: More arguments of pytest.
    """

    def run(part: Part, junit: Path, limit: float) -> bool:
        command = [sys.executable, "-m", "pytest", part.path, f"--junitxml={junit}", "-q", "-rN", *arguments]
        return ended_within(command, limit)

    return run


def ended_within(command: Sequence[str], seconds: float) -> bool:
    """Run a command, kill it and its children at the limit, and return whether it ended by itself."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return True


def main() -> None:
    """Run every part and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=BUDGET_SECONDS, help="time for everything (default: 720)")
    parser.add_argument("--part", action="append", choices=[part.name for part in PARTS], help="only this part")
    chosen, more = parser.parse_known_args()
    parts = [part for part in PARTS if not chosen.part or part.name in chosen.part]
    rows = check(parts, pytest_run(more), chosen.seconds)
    print(f"\n{table(rows)}")
    sys.exit(failed(rows))


if __name__ == "__main__":
    main()
