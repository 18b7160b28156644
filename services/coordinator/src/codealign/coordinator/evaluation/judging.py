"""The judgement of a solution, in the sandbox.

A problem with inputs is judged in two executions. In the first the solution is called on every input and its
outputs are written down; the process knows nothing of what is expected. In the second, where no solution runs, the
outputs are compared, an assertion for each. The expected outputs come from the reference program, run the same way.
Solutions with the same outputs are so compared once: see `known.py`.
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
from codealign.coordinator.evaluation.limits import CALLS_LIMITS, CHECK_LIMITS, NUMPY
from codealign.coordinator.evaluation.problems import CallTests, CheckTests, Problem
from codealign.coordinator.evaluation.runners import RunnerCheck
from codealign.coordinator.ground.calls import INFRASTRUCTURE_TRIES, execute, trim
from codealign.coordinator.ground.faults import Faulty, RunFailed
from codealign.coordinator.ground.ports import Sandbox
from codealign.coordinator.ground.tally import StageTally, verdict_name
from codealign.coordinator.ground.waiting import Waiting
from codealign.coordinator.ground.windows import Window

log = get_logger(__name__)

VERSION = 2
"""Of the rules of judgement: results under another one are other results."""
CALL_SECONDS = 1.0
"""CPU seconds that a call may take at least (EvalPlus' least limit, there in wall-clock time)."""
REFERENCE_FACTOR = 4.0
"""Of what the reference takes for the same input, a call may take so much (EvalPlus' factor)."""
EXECUTIONS = (1, 8)
"""Over how many executions a problem's calls are spread: one, and more where its reference is too slow for that."""

_CALLS_TESTS = """\
import builtins as _codealign_builtins
_codealign_space = {{"__name__": "codealign.calls"}}
_codealign_builtins.exec({source}, _codealign_space)
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
_NO_OUTPUTS = "no outputs came back: it wrote over them, or they are longer than 1 MiB"


def _source(name: str) -> str:
    return (files("codealign.coordinator.evaluation.in_sandbox") / name).read_text(encoding="utf-8")


_AGREEMENT = _source("agreement.py")
_CALLS = repr(_source("calls.py")).replace("numpy", r"\x6eumpy")
"""A literal. The sandbox gives numpy to a program whose text names it, and ours only knows numpy's numbers."""


class ReferenceFailed(RunFailed):
    """The benchmark's own solution of a problem fails in the sandbox: no solution of it can be judged."""


@dataclass(frozen=True)
class _Expected:
    """What a problem's solutions are measured by."""

    outputs: bytes
    """The reference's, as `calls.py` writes them."""
    seconds: list[float]
    """CPU seconds that each call may take."""
    executions: int
    """The calls are spread over so many."""


@dataclass(frozen=True)
class _Written:
    """What `calls.py` wrote of a program, a line for each execution."""

    outputs: bytes
    seconds: bytes
    """Of CPU, that each call took."""


@dataclass
class Judge:
    """Judges solutions of one evaluation; keeps the expected outputs of each problem as long as it lives."""

    sandbox: Sandbox
    slots: Window
    """Programs at the sandbox at once."""
    tally: StageTally
    gate: Callable[[], None]
    known: KnownResults
    waiting: Waiting | None = None
    """Told when the sandbox is away."""
    check: RunnerCheck | None = None
    """Of the runners that the results are to rest on. None: whatever runners are there."""
    _answers: bool = False
    """The sandbox has executed a program."""
    _profile: str | None = None
    """In which solutions are executed; None: not asked yet."""
    _profile_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _expected: dict[str, _Expected] = field(default_factory=dict)
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def judge(self, problem: Problem, solution: str) -> sb.Result | None:
        """What became of a solution.

        Returns:
            The result that a record keeps; None where the infrastructure kept failing, or where this machine was
            too slow for the reference program.

        Raises:
            ReferenceFailed: The problem's own solution fails.
            RunFailed: The sandbox cannot be used at all.
            RunStopped: The sandbox has other runners by now.
        """
        if isinstance(problem.tests, CheckTests):
            tests = f"{problem.tests.program}\n\ncheck({problem.entry_point})\n"
            result = await self._run_solution(sb.Program(code=solution, tests=tests), CHECK_LIMITS)
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
        compared = await self._compare(tests, expected, written.outputs)
        return None if compared is None else _merged(called, compared)

    async def _expect(self, problem: Problem, tests: CallTests) -> _Expected | None:
        """The expected outputs, computed at the first solution of the problem."""
        key = problem.tests_sha256
        async with self._locks[key]:
            for executions in () if key in self._expected else EXECUTIONS:
                answer = await self._call(problem, tests, tests.reference, [], executions)
                if answer is None:
                    return None
                result, written = answer
                if result.verdict in _TOO_SLOW:  # the machine's fault: it is known to be right
                    log.warning("reference_too_slow", problem_id=problem.problem_id, executions=executions)
                    continue
                if result.verdict != sb.VERDICT_PASSED or written is None:
                    raise ReferenceFailed(
                        f"{problem.benchmark}: the reference solution of {problem.problem_id} did not get through in "
                        f"the sandbox ({verdict_name(result.verdict)}: {result.detail}); is the benchmark's file whole?"
                    )
                taken = [seconds for line in written.seconds.split(b"\n") for seconds in json.loads(line)]
                limits = [max(CALL_SECONDS, REFERENCE_FACTOR * seconds) for seconds in taken]
                self._expected[key] = _Expected(written.outputs, limits, executions)
                break
            return self._expected.get(key)

    async def _call(
        self, problem: Problem, tests: CallTests, program: str, seconds: list[float], executions: int
    ) -> tuple[sb.Result, _Written | None] | None:
        """Call the program's entry point on every input.

        Returns:
            What became of it, and what was written down; None in place of the latter where it did not get through, or
            nothing is there.
        """
        total, lines, count = sb.Result(), [], len(tests.inputs)
        for number in range(executions):
            part = slice(number * count // executions, (number + 1) * count // executions)
            asked = {"inputs": tests.inputs[part], "seconds": seconds[part], "as_set": tests.rule == "set"}
            asserts = _CALLS_TESTS.format(source=_CALLS, entry_point=problem.entry_point)
            given = sb.File(path=calls.INPUTS_FILE, content=json.dumps(asked).encode())
            result = await self._run_solution(sb.Program(code=program, tests=asserts, files=[given]), CALLS_LIMITS)
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

    async def _run_solution(self, program: sb.Program, limits: sb.Limits) -> sb.Result | None:
        profile = await self._solutions_profile()
        return None if profile is None else await self._run(program, limits, profile)

    async def _solutions_profile(self) -> str | None:
        """`NUMPY` where a program can import it there, else empty; None where the infrastructure kept failing."""
        async with self._profile_lock:
            if self._profile is None:
                program = sb.Program(language=sb.LANGUAGE_PYTHON, code=f"import {NUMPY}\n")
                result = await self._execute(sb.ExecuteRequest(program=program, profile=NUMPY))
                if result is None or result.verdict in _TOO_SLOW:  # the machine's fault: numpy may be there
                    return None
                self._profile = NUMPY if result.verdict == sb.VERDICT_COMPLETED else ""
                log.info("solutions_profile", profile=self._profile, verdict=verdict_name(result.verdict))
            return self._profile

    async def _run(self, program: sb.Program, limits: sb.Limits, profile: str = "") -> sb.Result | None:
        program.language = sb.LANGUAGE_PYTHON
        request = sb.ExecuteRequest(program=program, limits=limits, profile=profile)
        runners = self.check.key if self.check is not None else ""
        return await self.known.of(request, lambda: self._execute(request), runners)

    async def _execute(self, request: sb.ExecuteRequest) -> sb.Result | None:
        """Execute a program on runners that the results may rest on; None where the infrastructure kept failing."""
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
            log.warning("program_undecided", message=str(fault))  # it executes others: the fault is in this program
            return None
        self._answers |= result is not None
        return result


def _take_written(result: sb.Result) -> tuple[bytes, bytes] | None:
    """Take the line of outputs and times out of a result's standard error; None where there is none."""
    before, found, after = result.stderr.data.rpartition(calls.MARKER)
    if not found:
        return None
    line, end, rest = after.partition(b"\n")
    result.stderr.data = before + rest
    outputs, separator, seconds = line.partition(calls.SEPARATOR)
    return (outputs, seconds) if end and separator else None


def _summed(before: sb.Result, result: sb.Result) -> sb.Result:
    """The result of several executions: the last one's, with the time and memory of all."""
    summed = sb.Result()
    summed.CopyFrom(result)
    summed.wall_seconds += before.wall_seconds
    summed.cpu_seconds += before.cpu_seconds
    summed.queue_seconds += before.queue_seconds
    summed.peak_memory_bytes = max(before.peak_memory_bytes, result.peak_memory_bytes)
    return summed


def _merged(called: sb.Result, compared: sb.Result) -> sb.Result:
    """The verdict of the comparison, with the evidence of the solution's own run."""
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
