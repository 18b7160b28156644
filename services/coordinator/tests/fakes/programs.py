"""Programs of our own, executed as the sandbox's harness does but in no sandbox. Never pass text that a model wrote."""

from __future__ import annotations

import subprocess
import sys

from codealign.api.sandbox.v1 import sandbox_pb2 as sb

_HARNESS = """
import sys, types
code, tests = eval(sys.stdin.read())
module = types.ModuleType("solution")
sys.modules["solution"] = module
exec(compile(code, "solution.py", "exec"), module.__dict__)
module.__name__ = "__main__"
exec(compile(tests, "<tests>", "exec"), module.__dict__)
"""


def executed(program: sb.Program) -> tuple[bool, bytes]:
    """Return whether a program's tests pass, and its standard output. Hashes are those that the sandbox has."""
    done = subprocess.run(
        [sys.executable, "-s", "-P", "-c", _HARNESS],
        env={"PYTHONHASHSEED": "0"},
        input=repr((program.code, program.tests)).encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode == 0, done.stdout
