"""Judging of solutions in the sandbox.

A problem with inputs is judged in two executions. The first calls the solution on every input and records its outputs;
that process does not have the expected outputs. The second compares the recorded outputs, one assertion per output, and
runs no code of the solution. The expected outputs come from the reference program, run the same way. Outputs that are
the reference's, byte by byte, need no comparison, and others are compared once for all solutions: see `known.py`.
See docs/decisions/008-evaluation.md.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.logs import get_logger
from codealign.coordinator.evaluation.in_sandbox import calls
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.limits import CALLS_LIMITS, CHECK_LIMITS
from codealign.coordinator.evaluation.problems import RULES, CallTests, CheckTests, Problem
from codealign.coordinator.evaluation.runners import RunnerCheck
from codealign.coordinator.ground.calls import INFRASTRUCTURE_TRIES, execute, trim
from codealign.coordinator.ground.faults import Faulty, RunFailed
from codealign.coordinator.ground.ports import Sandbox
from codealign.coordinator.ground.tally import StageTally, verdict_name
from codealign.coordinator.ground.waiting import Waiting
from codealign.coordinator.ground.windows import Window
from codealign.coordinator.reading.compact import compact

log = get_logger(__name__)

VERSION = 3
"""Version of the judging rules. Results of different versions are distinct."""
CALL_SECONDS = 1.0
"""Minimum limit of a call, in CPU seconds (EvalPlus' minimum, which is in wall-clock time)."""
REFERENCE_FACTOR = 4.0
"""Limit of a call as a multiple of the reference's time for the same input (EvalPlus' factor)."""
EXECUTIONS = (1, 8)
"""Numbers of executions to spread a problem's calls over: one, or more if the reference is too slow for one."""

EQUAL_IS_RIGHT = frozenset(RULES) - {"not-none", "find-zero"}
"""Rules by which an output equal to the expected one is right. No other property of it is looked at."""

_CALLS_TESTS = """\
import builtins as _codealign_builtins
_codealign_space = {{"__name__": "codealign.calls"}}
_codealign_builtins.exec(_codealign_builtins.bytes.fromhex("{program}").decode(), _codealign_space)
for _codealign_answered in _codealign_space["answers"]({entry_point}):
    assert _codealign_answered
"""
_AGREEMENT_TESTS = """\
for rule, case in cases():
    agreed = rule.agrees(case)
    if not agreed:
        print(explain(case))
    assert agreed
"""
_TOO_SLOW = (sb.VERDICT_TIMED_OUT, sb.VERDICT_OUT_OF_MEMORY)
_NO_OUTPUTS = "no outputs were returned: the solution overwrote them, or they exceed 1 MiB"


def _source(name: str) -> str:
    return (files("codealign.coordinator.evaluation.in_sandbox") / name).read_text(encoding="utf-8")


_AGREEMENT = f"exec(bytes.fromhex('{compact(_source('agreement.py'))}').decode())\n"
_CALLS = compact(_source("calls.py"))


class ReferenceFailed(RunFailed):
    """The benchmark's reference solution fails in the sandbox, so no solution of the problem can be judged."""


@dataclass(frozen=True)
class _Expected:
    """Expected outputs and time limits of a problem's solutions."""

    outputs: bytes
    """Outputs of the reference, as written by `calls.py`."""
    seconds: list[float]
    """Limit of each call, in CPU seconds."""
    executions: int
    """Number of executions that the calls are spread over."""


@dataclass(frozen=True)
class _Written:
    """Output of `calls.py` for a program, one line per execution."""

    outputs: bytes
    seconds: bytes
    """CPU seconds of each call."""


@dataclass
class Judge:
    """Judge of one evaluation's solutions. Caches the expected outputs of each problem."""

    sandbox: Sandbox
    slots: Window
    """Window of concurrent sandbox executions."""
    tally: StageTally
    gate: Callable[[], None]
    known: KnownResults
    waiting: Waiting | None = None
    """Notified when the sandbox is unavailable."""
    check: RunnerCheck | None = None
    """Check of the runners that results must come from, or None to accept any runner."""
    _answers: bool = False
    """Whether the sandbox has executed a program before."""
    _expected: dict[str, _Expected] = field(default_factory=dict)
    _too_slow: set[str] = field(default_factory=set)
    """Problems whose reference this machine is too slow for: trying it for every sample would take hours."""
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def judge(self, problem: Problem, solution: str) -> sb.Result | None:
        """Judge a solution.

        Returns:
            The result to record, or None if infrastructure faults persisted or this machine was too slow for the
            reference program.

        Raises:
            ReferenceFailed: The problem's reference solution fails.
            RunFailed: The sandbox is unusable.
            RunStopped: The sandbox's runners have changed.
        """
        if isinstance(problem.tests, CheckTests):
            tests = f"{problem.tests.program}\n\ncheck({problem.entry_point})\n"
            result = await self._run(sb.Program(code=solution, tests=tests), CHECK_LIMITS)
        else:
            result = await self._judge_calls(problem, problem.tests, solution)
        if result is not None:
            trim(result)
        return result

    async def _judge_calls(self, problem: Problem, tests: CallTests, solution: str) -> sb.Result | None:
        expected = await self._expect(problem, tests)
        if expected is None:
            return None
        answer = await self._call(problem, tests, solution, expected.seconds, expected.executions)
        if answer is None:
            return None
        called, written = answer
        if called.verdict != sb.VERDICT_PASSED:
            if called.exception == calls.CallTimedOut.__name__:
                called.verdict, called.exception = sb.VERDICT_TIMED_OUT, ""
            return called
        if written is None:
            called.verdict, called.detail = sb.VERDICT_FAILED_ASSERTION, _NO_OUTPUTS
            return called
        if written.outputs == expected.outputs and tests.rule in EQUAL_IS_RIGHT:
            return called
        compared = await self._compare(tests, expected, written.outputs)
        return None if compared is None else _merged(called, compared)

    async def _expect(self, problem: Problem, tests: CallTests) -> _Expected | None:
        """Return the expected outputs, computed when the problem's first solution is judged."""
        key = problem.tests_sha256
        async with self._locks[key]:
            for executions in () if key in self._expected or key in self._too_slow else EXECUTIONS:
                answer = await self._call(problem, tests, tests.reference, [], executions)
                if answer is None:
                    return None
                result, written = answer
                if result.verdict in _TOO_SLOW:  # the machine is too slow: the reference is known to be correct
                    log.warning("reference_too_slow", problem_id=problem.problem_id, executions=executions)
                    continue
                if result.verdict != sb.VERDICT_PASSED or written is None:
                    raise ReferenceFailed(
                        f"{problem.benchmark}: the reference solution of {problem.problem_id} failed in the sandbox "
                        f"({verdict_name(result.verdict)}: {result.detail}); check that the benchmark file is complete"
                    )
                taken = [seconds for line in written.seconds.split(b"\n") for seconds in json.loads(line)]
                limits = [max(CALL_SECONDS, REFERENCE_FACTOR * seconds) for seconds in taken]
                self._expected[key] = _Expected(written.outputs, limits, executions)
                break
            else:
                if key not in self._expected:
                    self._too_slow.add(key)
            return self._expected.get(key)

    async def _call(
        self, problem: Problem, tests: CallTests, program: str, seconds: list[float], executions: int
    ) -> tuple[sb.Result, _Written | None] | None:
        """Call the program's entry point on every input.

        Returns:
            The result and the recorded outputs; the latter is None if the program did not pass or returned no outputs.
            None if infrastructure faults persisted.
        """
        total, lines, count = sb.Result(), [], len(tests.inputs)
        executions = min(executions, count)  # without a call, an execution has no assertion and would not pass
        for number in range(executions):
            part = slice(number * count // executions, (number + 1) * count // executions)
            asked = {"inputs": tests.inputs[part], "seconds": seconds[part], "as_set": tests.rule == "set"}
            asserts = _CALLS_TESTS.format(program=_CALLS, entry_point=problem.entry_point)
            given = sb.File(path=calls.INPUTS_FILE, content=json.dumps(asked).encode())
            result = await self._run(sb.Program(code=program, tests=asserts, files=[given]), CALLS_LIMITS)
            if result is None:
                return None
            line = _take_written(result)
            total = _summed(total, result)
            if result.verdict != sb.VERDICT_PASSED or line is None:
                return total, None
            lines.append(line)
        return total, _Written(*(b"\n".join(parts) for parts in zip(*lines, strict=True)))

    async def _compare(self, tests: CallTests, expected: _Expected, outputs: bytes) -> sb.Result | None:
        asked = {
            "rule": tests.rule,
            "atol": tests.atol,
            "parts": [[part.name, len(part.inputs)] for part in tests.parts],
            "inputs": tests.inputs if tests.rule in ("find-zero", "surface-area", "digit-distance") else [],
        }
        contents = {
            "asked.json": json.dumps(asked).encode(),
            "expected.jsonl": expected.outputs,
            "outputs.jsonl": outputs,
        }
        given = [sb.File(path=path, content=content) for path, content in contents.items()]
        return await self._run(sb.Program(code=_AGREEMENT, tests=_AGREEMENT_TESTS, files=given), CALLS_LIMITS)

    async def _run(self, program: sb.Program, limits: sb.Limits) -> sb.Result | None:
        program.language = sb.LANGUAGE_PYTHON
        request = sb.ExecuteRequest(program=program, limits=limits)
        runners = self.check.key if self.check is not None else ""
        return await self.known.of(request, lambda: self._execute(request), runners)

    async def _execute(self, request: sb.ExecuteRequest) -> sb.Result | None:
        """Execute a program on runners that `check` accepts; None if infrastructure faults persisted."""
        for _ in range(INFRASTRUCTURE_TRIES):
            result = await self._try(request)
            if result is None or self.check is None or await self.check.passes(result):
                return result
            await self.check.require_current()
        return None

    async def _try(self, request: sb.ExecuteRequest) -> sb.Result | None:
        try:
            async with self.slots:
                result = await execute(self.sandbox, request, self.tally, self.gate, self.slots, self.waiting)
        except Faulty as fault:
            if not self._answers:
                raise
            log.warning(
                "program_undecided", message=str(fault)
            )  # the sandbox executes other programs: this one causes it
            return None
        self._answers |= result is not None
        return result


def _take_written(result: sb.Result) -> tuple[bytes, bytes] | None:
    """Remove the line with outputs and times from a result's standard error and return it, or None if missing."""
    before, found, after = result.stderr.data.rpartition(calls.MARKER)
    if not found:
        return None
    line, end, rest = after.partition(b"\n")
    result.stderr.data = before + rest
    outputs, separator, seconds = line.partition(calls.SEPARATOR)
    return (outputs, seconds) if end and separator else None


def _summed(before: sb.Result, result: sb.Result) -> sb.Result:
    """Return the last result with the total times and the peak memory of all executions."""
    summed = sb.Result()
    summed.CopyFrom(result)
    summed.wall_seconds += before.wall_seconds
    summed.cpu_seconds += before.cpu_seconds
    summed.queue_seconds += before.queue_seconds
    summed.peak_memory_bytes = max(before.peak_memory_bytes, result.peak_memory_bytes)
    return summed


def _merged(called: sb.Result, compared: sb.Result) -> sb.Result:
    """Return the comparison's verdict together with the output and measurements of the solution's run."""
    merged = sb.Result()
    merged.CopyFrom(called)
    merged.verdict = compared.verdict
    merged.assertions_executed, merged.assertions_total = compared.assertions_executed, compared.assertions_total
    merged.queue_seconds += compared.queue_seconds
    if compared.verdict != sb.VERDICT_PASSED:
        said = compared.stdout.data.decode("utf-8", "replace").strip()
        merged.detail = said or compared.detail
        merged.exception = compared.exception
    return merged
