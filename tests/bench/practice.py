"""How many unseen programs write to memory that no program for practice writes to; see `codealign.runner.practice`.

    CODEALIGN_BENCHMARK_DATA=<folder> .venv/bin/python -m tests.bench.practice [--every 10]

In gVisor each such execution copies up to two megabytes more. Prints how many programs do so and the number of blocks.
Programs are canonical solutions of HumanEval and MBPP (without the variable, the few of `tests.bench.sandbox`), with
one, three or all of their assertions. Needs no gVisor: the fork servers run on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

import codealign.api
from codealign import runner
from codealign.coordinator.evaluation import benchmarks
from codealign.runner import build
from tests.bench.rows import programs
from tests.bench.rows.workers import BASE

_ASSERTIONS = (1, 3, None)
_SCRIPT = """\
import json, sys
from codealign.runner import configuration, practice
from codealign.runner.profiles import DEFAULT

def blocks(name, given):
    found = practice.practise(name, DEFAULT, given)
    return {found[at : at + 8] for at in range(0, len(found), 8)}

configuration.use_program_environment()
known = {}
for label, code, tests in json.load(sys.stdin):
    name = DEFAULT.server_of(code, tests)
    if name not in known:
        known[name] = blocks(name, practice.programs_of(name, DEFAULT))
    missed = len(blocks(name, [(code, tests)]) - known[name])
    print(json.dumps([label, name, missed]), flush=True)
"""
"""Runs in the interpreter that runners use. Prints label, fork server and number of blocks of each program."""


def unseen(every: int) -> list[tuple[str, str, str]]:
    """Return the labels, codes and tests of programs that are not among those for practice.

    Args:
        every: Use every so manieth problem.
    """
    folder = os.environ.get("CODEALIGN_BENCHMARK_DATA")
    if not folder:
        return [(f"own/{number}", each.code, each.tests) for number, each in enumerate(programs.load()[0]["typical"])]
    found = []
    for name in ("humaneval", "mbpp"):
        for number, problem in enumerate(benchmarks.load(name, Path(folder)).problems[::every]):
            program = programs.of_problem(problem)
            if program is not None:
                lines = program.tests.splitlines(keepends=True)
                kept = lines[: _ASSERTIONS[number % len(_ASSERTIONS)]]
                found.append((problem.problem_id, program.code, "".join(kept)))
    return found


def misses(given: list[tuple[str, str, str]]) -> list[tuple[str, str, int]]:
    """Return the label of each program, its fork server, and the number of blocks it wrote to outside the profile.

    Raises:
        RuntimeError: A fork server did not start, or a program did not.
    """
    with tempfile.TemporaryDirectory(prefix="codealign-practice-") as name:
        site = Path(name)
        package = Path(runner.__file__).parent
        shutil.copytree(package, site / "codealign" / "runner")
        build.build(site / "codealign" / "runner", practice=True)
        # The generated messages, and protobuf. No other part of this project is on the path.
        generated = Path(next(iter(codealign.api.__path__))).parent
        shutil.copytree(generated / "api", site / "codealign" / "api")
        path = os.pathsep.join([str(site), sysconfig.get_path("purelib"), *filter(None, sys.path)])
        done = subprocess.run(
            [BASE, "-S", "-s", "-P", "-c", _SCRIPT],
            input=json.dumps(given),
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"practice failed: {done.stderr.strip()[-1000:]}")
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def main() -> None:
    """Print what is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=10, help="use every so manieth problem (default 10)")
    every = parser.parse_args().every
    if every < 1:
        parser.error(f"--every must be at least 1, got {every}")
    folder = os.environ.get("CODEALIGN_BENCHMARK_DATA")
    if not folder:
        print("CODEALIGN_BENCHMARK_DATA is not set: a few programs instead of HumanEval's and MBPP's solutions\n")
    elif not Path(folder).is_dir():
        parser.error(f"CODEALIGN_BENCHMARK_DATA: no folder {folder}")
    found = misses(unseen(every))
    servers = Counter(server for _, server, _ in found)
    print("| fork server | programs | of these wrote outside the profile | blocks |\n|---|---:|---:|---:|")
    for server, count in servers.items():
        missed = [number for _, name, number in found if name == server and number]
        print(f"| {server} | {count} | {len(missed)} | {sum(missed)} |")
    print("\nPrograms that wrote outside the profile, with the number of blocks:")
    for label, server, number in found:
        if number:
            print(f"{label} ({server}): {number}")


if __name__ == "__main__":
    main()
