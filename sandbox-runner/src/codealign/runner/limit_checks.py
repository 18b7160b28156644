"""Isolation checks of resource limits: each probe exceeds a limit and must be stopped."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import execution, probes, verdict
from codealign.runner.evidence import Evidence
from codealign.runner.execution import Program
from codealign.runner.profiles import MIB, Limits
from codealign.runner.slot import Slot

_LIMITS = Limits(
    wall_seconds=15.0,
    cpu_seconds=10.0,
    memory_bytes=128 * MIB,
    processes=8,
    disk_bytes=4 * MIB,
    output_bytes=256 * 1024,
    output_kill_bytes=1 * MIB,
    threads=8,
)


def run(slot: Slot, program: Program, cancelled: threading.Event | None = None, **changed: Any) -> Evidence:
    """Run a probe like any other program.

    Args:
        slot: An idle slot.
        program: The probe.
        cancelled: Set to end it.
        changed: Limits that differ from the probes' defaults.
    """
    limits = dataclasses.replace(_LIMITS, **changed)
    return execution.execute(slot, program, limits, cancelled or threading.Event())


def _verdict(seen: Evidence, program: Program) -> str:
    judged = verdict.judge(seen, verdict.Asked(program.code, program.tests, None, _LIMITS))
    return pb.Verdict.Name(judged.verdict).removeprefix("VERDICT_")


def _memory(slot: Slot) -> pb.IsolationCheck:
    results = []
    for code in (probes.ONE_LARGE_BLOCK, probes.MANY_SMALL_BLOCKS):
        program = Program(code)
        results.append(_verdict(run(slot, program, memory_bytes=64 * MIB), program))
    evidence = f"limit 64 MiB; one block of 1 TiB: {results[0]}; 4 processes with 24 MiB each: {results[1]}"
    return pb.IsolationCheck(name="memory", passed=results == ["OUT_OF_MEMORY"] * 2, evidence=evidence)


def _process_limit(slot: Slot) -> pb.IsolationCheck:
    program = Program(probes.FORKS)
    seen = run(slot, program)
    result = _verdict(seen, program)
    words = seen.stdout.split()
    started = int(words[0]) if words else -1
    # Either the kernel refuses, or, where slots share a user, the supervisor kills the program.
    passed = 0 < started <= _LIMITS.processes or result == "PROCESS_LIMIT"
    evidence = f"limit {_LIMITS.processes}; successful forks: {started}; {result}"
    return pb.IsolationCheck(name="process limit", passed=passed, evidence=evidence)


def _disk(slot: Slot) -> pb.IsolationCheck:
    program = Program(probes.FILL_DISK)
    result = _verdict(run(slot, program), program)
    evidence = f"limit 4 MiB; writing 24 MiB across all writable directories: {result}"
    return pb.IsolationCheck(name="disk", passed=result == "DISK_LIMIT", evidence=evidence)


def _output(slot: Slot) -> pb.IsolationCheck:
    program = Program(probes.FLOOD)
    seen = run(slot, program)
    result = _verdict(seen, program)
    kept = len(seen.stdout)
    passed = result == "OUTPUT_LIMIT" and kept <= _LIMITS.output_bytes
    evidence = f"limit 1 MiB; endless output: {result}; {kept} bytes kept"
    return pb.IsolationCheck(name="output", passed=passed, evidence=evidence)


def _cpu(slot: Slot) -> pb.IsolationCheck:
    program = Program(probes.SPIN)
    seen = run(slot, program, cpu_seconds=0.3)
    result = _verdict(seen, program)
    passed = result == "TIMED_OUT" and seen.killed_for is not None and seen.killed_for.value == "cpu"
    evidence = f"limit 0.3 s; endless computation: {result} after {seen.cpu_seconds:.1f} s of CPU time"
    return pb.IsolationCheck(name="cpu", passed=passed, evidence=evidence)


def _death(slot: Slot) -> pb.IsolationCheck:
    before = {name for name in os.listdir("/proc") if name.isdigit()}
    program = Program(probes.DAEMON)
    result = _verdict(run(slot, program, wall_seconds=0.4), program)
    after = {name for name in os.listdir("/proc") if name.isdigit()} - before
    evidence = f"a daemon that ignores SIGTERM, at the time limit: {result}; processes left: {len(after)}"
    return pb.IsolationCheck(name="death", passed=result == "TIMED_OUT" and not after, evidence=evidence)


ALL: tuple[Callable[[Slot], pb.IsolationCheck], ...] = (_memory, _process_limit, _disk, _output, _cpu, _death)
"""All limit checks, in the order in which they run."""
