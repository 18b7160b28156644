"""Execution: answer and tests run in the sandbox."""

from __future__ import annotations

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.pipelines.stage import Execution, Item


class ResponseExecution(Execution):
    """A response's code, then its tests."""

    name = "execution"
    parent = "responses"
    title = "Execution"
    description = "Answer and tests run in the sandbox."
    VERSION = 1
    # Every verdict except PASSED, which drops nothing.
    reasons = {
        "FAILED_ASSERTION": "an assertion failed",
        "RAISED": "raised an exception",
        "SYNTAX_ERROR": "does not compile",
        "TIMED_OUT": "ran out of time",
        "OUT_OF_MEMORY": "ran out of memory",
        "OUTPUT_LIMIT": "wrote too much output",
        "PROCESS_LIMIT": "started too many processes",
        "DISK_LIMIT": "filled its disk",
        "CRASHED": "ended by a signal",
        "EXITED_EARLY": "ended before its last test",
        "NO_TESTS": "executed no assertion",
        "FLAKY": "passed in some runs only",
        "COMPLETED": "ran without tests",
        "REFUSED": "could not be run",
        "INFRASTRUCTURE": "no verdict: the sandbox's own fault",
    }

    def program(self, item: Item) -> sb.Program:
        """Return the response's code and tests."""
        response = item.record.response
        return sb.Program(language=sb.LANGUAGE_PYTHON, code=response.code, tests=response.tests)
