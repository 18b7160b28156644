"""Execute programs one after the other and report how long each took, inside the measured environment.

    python -I -S -c "<this file>" MODE [ARGUMENT...]

Standard library only, and little of it, since what is imported here is what a fork copies. Reads marshalled pairs
(seconds, programs) from standard input and answers each by (seconds of each execution, faults). Modes:

    fork MODULE...    a warm fork server: a child compiles and runs the program
    bare MODULE...    a child ends at once: what a fork costs
    spawn ARGUMENT... a process for each program, whose source is the last argument
    shell PYTHON DIR  as a server without a sandbox does it: a shell sets a limit of memory and runs a file
    inline            no process at all: what the program itself takes
"""

from __future__ import annotations

import marshal
import os
import sys
import time
from collections.abc import Callable

Execute = Callable[[str], str]
"""Runs a program and returns the fault, or None."""
_MEMORY_KIB = 10 * 1024 * 1024
_FORMAT = 4
"""Version of the marshal format that all supported Python versions share."""
_FAULTS = 3


def forking(*modules: str) -> Execute:
    _load(modules)
    null = os.open(os.devnull, os.O_RDWR)

    def execute(program: str) -> str:
        pid = os.fork()
        if pid == 0:
            try:
                for descriptor in (0, 1, 2):
                    os.dup2(null, descriptor)
                exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
                os._exit(0)
            finally:
                os._exit(1)
        return _ended(os.waitpid(pid, 0)[1])

    return execute


def bare(*modules: str) -> Execute:
    _load(modules)

    def execute(_: str) -> str:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        return _ended(os.waitpid(pid, 0)[1])

    return execute


def _load(modules: tuple[str, ...]) -> None:
    import gc

    for name in modules:
        __import__(name)
    gc.collect()
    gc.freeze()


def _ended(status: int) -> str:
    return f"a child ended with {os.waitstatus_to_exitcode(status)}" if status else ""


def spawning(*command: str) -> Execute:
    import subprocess

    def execute(program: str) -> str:
        done = subprocess.run([*command, program], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return done.stderr.decode(errors="replace").strip()[-300:] or "it failed" if done.returncode else ""

    return execute


def shell(python: str, folder: str) -> Execute:
    import subprocess
    from pathlib import Path

    path = Path(folder, f"{os.getpid()}.py")
    command = f"ulimit -v {_MEMORY_KIB}; {python} {path}"

    def execute(program: str) -> str:
        path.write_text(program)
        done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        path.unlink()
        return done.stderr.decode(errors="replace").strip()[-300:] or "it failed" if done.returncode else ""

    return execute


def inline() -> Execute:
    def execute(program: str) -> str:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
        return ""

    return execute


MODES: dict[str, Callable[..., Execute]] = {
    "fork": forking,
    "bare": bare,
    "spawn": spawning,
    "shell": shell,
    "inline": inline,
}


def serve(execute: Execute) -> None:
    number = 0
    while True:
        try:
            seconds, programs = marshal.load(sys.stdin.buffer)
        except EOFError:
            return
        latencies: list[float] = []
        faults: list[str] = []
        ended = time.perf_counter()
        end = ended + seconds
        while ended < end or not latencies:
            program = programs[number % len(programs)]
            number += 1
            begun = time.perf_counter()
            fault = execute(program)
            ended = time.perf_counter()
            latencies.append(ended - begun)
            if fault and len(faults) < _FAULTS:
                faults.append(fault)
        sys.stdout.buffer.write(marshal.dumps((latencies, faults), _FORMAT))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(MODES[sys.argv[1]](*sys.argv[2:]))
