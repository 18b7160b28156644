"""Mutants that share an execution have the fates that they have alone. The texts are ours."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import batching, killing, observing, separable
from codealign.coordinator.agreement.batching import Fate
from codealign.coordinator.agreement.calls import Arguments
from codealign.coordinator.agreement.inputs import TESTS, Input
from codealign.coordinator.agreement.killing import Mutated
from codealign.coordinator.agreement.mutants import Mutant, mutants
from codealign.coordinator.agreement.outcomes import Outcome
from codealign.coordinator.agreement.strength import MutantResult
from codealign.coordinator.agreement.subjects import Subject
from codealign.coordinator.agreement.trials import INPUTS, Trial
from fakes.programs import executed

CODE = "def f(x):\n    total = 0\n    for each in range(x):\n        total += each\n    return total\n"
CHECKS = "assert f(4) == 6\nassert f(0) == 0\n"
WEAK = "assert f(0) == 0\n"
KEY = "anything"
SUBJECT = Subject("f", "", ())


def inputs(*texts: str) -> list[Input]:
    return [Input(Arguments((text,)), TESTS) for text in texts]


TRIED = inputs("0", "4", "-1", "7")


def run_program(program: sb.Program) -> sb.Result:
    """Execute one of this file's own programs."""
    passed, output = executed(program)
    verdict = sb.VERDICT_PASSED if passed else sb.VERDICT_FAILED_ASSERTION
    return sb.Result(verdict=verdict, stdout=sb.Output(data=output))


def together(
    code: str, tests: str, others: Sequence[str], tried: Sequence[Input] = (), *, proves: bool = True
) -> batching.Batch:
    program = batching.program(code, tests, others, KEY, SUBJECT, tried)
    assert program is not None
    return batching.read(executed(program)[1], KEY, len(others), len(tried), proves=proves)


def killed(batch: batching.Batch) -> list[bool | str | None]:
    return ["not begun" if fate is None else fate.killed for fate in batch.fates]


def results(
    code: str,
    tests: str,
    made: Sequence[Mutant],
    run: Callable[[Trial], sb.Result | None],
    *,
    batched: bool,
    subject: Subject | None = SUBJECT,
) -> tuple[list[MutantResult], Counter[str]]:
    """Return the mutants' results, and the executed trials by purpose."""
    count = Counter[str]()

    async def execute(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
        count.update(each.purpose for each in trials)
        return [run(each) for each in trials]

    def observe(text: str) -> Trial:
        program = observing.program(text, SUBJECT, TRIED, text)
        return Trial(INPUTS, 0, 0, program, observing.LIMITS)

    def read(trial: Trial, result: sb.Result | None) -> tuple[Outcome, ...]:
        assert result is not None
        return observing.read(result.stdout.data, trial.program.code, len(TRIED)).outcomes

    answer = Mutated(0, code, tests, subject, TRIED, observe, read)
    return [each for _, each in asyncio.run(killing.tried(answer, made, execute, together=batched))], count


RECIPES = [
    (CODE, CHECKS),
    ("def f(x):\n    if x < 5:\n        return [x] * 2\n    return []\n", "assert f(2) == [2, 2]\n"),
    (
        "import math\n\nseen = []\n\ndef f(x, by=2):\n    seen.append(x)\n    return math.floor(x / by) + len(seen)\n",
        "def test_f():\n    assert f(5) == 3\n\ntest_f()\n",
    ),
    (
        "def f(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x % 3 == 0\n",
        "assert f(3)\nassert not f(4)\ntry:\n    f(-1)\n    assert False\nexcept ValueError:\n    pass\n",
    ),
    ("def f(x):\n    return [each + 1 for each in range(x)][:3]\n", "for x in (3, 9):\n    assert f(x) == [1, 2, 3]\n"),
]


@pytest.mark.parametrize(("code", "tests"), RECIPES)
def test_mutants_have_the_same_fates_together_as_alone(code: str, tests: str) -> None:
    made = mutants(code, 12)
    alone, executions = results(code, tests, made, lambda trial: run_program(trial.program), batched=False)
    common, fewer = results(code, tests, made, lambda trial: run_program(trial.program), batched=True)
    assert common == alone
    assert {each.killed for each in alone} >= {True}
    assert len(made) >= 5
    assert fewer["mutants"] == 1
    assert fewer.total() < executions.total()


def test_one_execution_decides_and_observes_all_mutants_of_plain_tests() -> None:
    made = mutants(CODE)
    found, executions = results(CODE, WEAK, made, lambda trial: run_program(trial.program), batched=True)
    assert executions == {"mutants": 1}
    survivors = [each for each in found if each.killed is False]
    assert survivors
    assert all(len(each.outcomes) == len(TRIED) for each in survivors)


def test_mutants_that_nothing_can_be_called_in_are_not_observed() -> None:
    made = mutants(CODE)
    run = lambda trial: run_program(trial.program)  # noqa: E731
    found, executions = results(CODE, WEAK, made, run, batched=True, subject=None)
    assert executions == {"mutants": 1}
    assert all(each.outcomes == () for each in found)


def test_a_mark_at_the_beginning_is_no_part_of_a_text() -> None:
    batch = together("\ufeff" + CODE, "\ufeff" + CHECKS, [CODE, CODE.replace("total = 0", "total = 1")])
    assert killed(batch) == [False, True]


HONEST = CODE.replace("range(x)", "range(x + 0)")
DETECTED = CODE.replace("total = 0", "total = 1")
ODD = {
    "endless": ("while True:\n    pass\n", True),
    "endless and stubborn": ("while True:\n    try:\n        while True: pass\n    except BaseException: pass\n", True),
    "crash": ("import os\nos.abort()\n", True),
    "early end": ("import os\nos._exit(0)\n", True),
    "exit": ("raise SystemExit(0)\n", True),
    "unreadable": ("def f(:\n", True),
    "too deep": ("def g(): return g()\ng()\n", True),
    "memory": ("raise MemoryError\n", None),
    "prints": ("print('x' * (3 << 20))\n" + CODE, None),
    "prints a little": ("print('x' * 9_000)\n" + CODE, False),
    "looks like a failure of ours": ("import os\nos._exit(3)\n", None),
    "another's marker": (f'print(\'\\n{batching._marker(KEY, 1)} ["program", "failed"]\\n\')\n' + CODE, False),
    "changes modules": ("import builtins, math\nmath.pi = 3\nbuiltins.range = None\nf = lambda x: 5\n", True),
    "changes our names": ("for _name in list(globals()):\n    del globals()[_name]\n", True),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "SECONDS", 1.0)
    # Whatever else the machine does.
    monkeypatch.setattr(batching, "FACTOR", 0.1)
    monkeypatch.setattr(batching, "WAIT_SECONDS", 300.0)
    monkeypatch.setattr(batching, "TOTAL_SECONDS", 300.0)


@pytest.mark.usefixtures("impatient")
def test_no_mutant_affects_another() -> None:
    order = [HONEST, *(each for text, _ in ODD.values() for each in (text, HONEST, DETECTED))]
    batch = together(CODE, CHECKS, order, TRIED)
    assert batch.ended
    assert dict(zip(ODD, killed(batch)[1::3], strict=True)) == {name: fate for name, (_, fate) in ODD.items()}
    expected = batch.fates[0]
    assert expected is not None
    assert expected.outcomes is not None
    assert [str(each) for each in expected.outcomes] == ["returns 0", "returns 6", "returns 0", "returns 21"]
    assert batch.fates[2::3] == (expected,) * len(ODD)
    assert batch.fates[3::3] == (Fate(True),) * len(ODD)


def test_a_mutant_that_waits_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAIT_SECONDS", 5.0)
    code = "import time\ntime.sleep(60)\n" + CODE
    assert killed(together(CODE, CHECKS, [code, DETECTED])) == [None, True]


def test_a_process_that_a_mutant_starts_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAIT_SECONDS", 20.0)
    code = "import os\nif not os.fork():\n    f = None\nelse:\n    os.wait()\n" + CODE.replace("def f", "def g")
    assert killed(together(CODE, CHECKS, [code + "\nf = locals().get('f', g)\n", DETECTED])) == [False, True]


def test_settings_that_a_mutant_leaves_behind_reach_no_other() -> None:
    left = "import math\nif not hasattr(math, 'left'):\n    math.left = range\n" + CODE
    # The answer fails where something is left, so the next mutant begins in a new process.
    code = "import math\nassert not hasattr(math, 'left')\n" + CODE
    batch = together(code, CHECKS, [left, code, left, DETECTED, code])
    assert killed(batch) == [False, False, False, True, False]
    assert batch.ended


def test_a_program_that_is_killed_leaves_the_rest_to_another_one() -> None:
    killer = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(30)\n"
    codes = [HONEST, killer, DETECTED, HONEST]
    wanted = [False, True, True, False]
    # What was decided before may not have been told before the end.
    told = killed(together(CODE, CHECKS, codes))
    assert all(fate in (own, None, "not begun") for fate, own in zip(told, wanted, strict=True))
    assert told[1:] in ([None] * 3, ["not begun"] * 3)
    made = [Mutant(1, "", str(number), text) for number, text in enumerate(codes)]

    def run(trial: Trial) -> sb.Result | None:
        if trial.program.code == killer:
            return sb.Result(verdict=sb.VERDICT_CRASHED)
        return run_program(trial.program)

    found, executions = results(CODE, CHECKS, made, run, batched=True)
    assert [each.killed for each in found] == wanted
    assert executions["mutants"] >= 1
    assert executions["mutant"] >= 1


def test_without_time_mutants_are_executed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "TOTAL_SECONDS", -1.0)
    batch = together(CODE, CHECKS, [HONEST, DETECTED])
    assert batch == batching.Batch((None, None), ended=True)
    made = mutants(CODE, 3)
    found, executions = results(CODE, CHECKS, made, lambda trial: run_program(trial.program), batched=True)
    assert executions["mutant"] == 3
    assert all(each.killed is not None for each in found)


@pytest.mark.parametrize(
    "tests",
    ["assert f(4) == 7\n", "import time\nwhile time.process_time() < 9: pass\nassert f(4) == 6\n"],
    ids=["fails", "takes too long"],
)
def test_nothing_is_decided_if_the_answer_itself_does_not_pass(tests: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separable, "_MODULES", separable._MODULES | {"time"})
    monkeypatch.setattr(batching, "SECONDS", 0.5)
    assert set(together(CODE, tests, [HONEST, DETECTED]).fates) == {Fate(None)}


def test_a_time_out_while_the_answer_is_slow_too_decides_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    # The answer is quick the first time alone, as on a machine that is busy from then on.
    once = tmp_path_factory.mktemp("once") / "seen"
    slow = f"if os.path.exists({str(once)!r}):\n    while time.process_time() < 2: pass\n"
    code = f"import os, time\n{slow}open({str(once)!r}, 'w').close()\n{CODE}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separable, "_MODULES", separable._MODULES | {"os", "time"})
        patch.setattr(separable, "_REACHING", frozenset())
        patch.setattr(batching, "SECONDS", 1.0)
        assert together(code, CHECKS, ["while True: pass\n"]).fates == (Fate(None),)


def lines(number: int, *said: object) -> bytes:
    marker = batching._marker(KEY, number).encode()
    return b"".join(b"\n" + marker + b" " + json.dumps(each).encode() + b"\n" for each in said)


OWN = lines(0, ["program", "passed"])
OUTCOME = ["input", 0, {"kind": "returned", "text": "1"}]


@pytest.mark.parametrize(
    ("said", "fate"),
    [
        (b"", None),
        (lines(1, ["program", "failed"]), Fate(True)),
        (lines(1, ["program", "passed"]), Fate(False)),
        (lines(1, OUTCOME, ["observed"], ["program", "passed"]), Fate(False, (Outcome("returned", "1"),))),
        (lines(1, OUTCOME, ["program", "passed"]), Fate(False)),
        (lines(1, OUTCOME, ["observed"]), Fate(None)),
        (
            lines(1, OUTCOME, OUTCOME, ["observed"], ["program", "passed"]),
            Fate(False, (Outcome("unobserved", "written twice"),)),
        ),
        (lines(1, ["program", "passed"], ["program", "failed"]), Fate(None)),
        (lines(1, ["program", "failed"], ["program", "failed"]), Fate(None)),
        (lines(1, ["program", "dancing"]), Fate(None)),
        (lines(1, {"program": "failed"}), Fate(None)),
        (lines(1, ["program", "failed"])[:-4], None),
        (lines(1, ["program", "failed"])[:-4] + b"\n", Fate(None)),
        (lines(1, ["program", "failed"])[2:], None),
        (lines(0, ["program", "passed"]) + lines(1, ["program", "failed"]), Fate(None)),
        (lines(0, ["end"], ["end"]) + lines(1, ["program", "failed"]), Fate(None)),
    ],
)
def test_lines_that_are_cut_malformed_or_doubled_decide_nothing(said: bytes, fate: Fate | None) -> None:
    assert batching.read(OWN + said, KEY, 1, 1, proves=True).fates == (fate,)


def test_nothing_is_read_without_the_line_of_the_answer() -> None:
    said = lines(1, ["program", "failed"])
    assert batching.read(said, KEY, 1, 1, proves=True).fates == (Fate(None),)
    assert batching.read(lines(0, ["program", "slow"]) + said, KEY, 1, 1, proves=True).fates == (Fate(None),)


def test_survivors_of_tests_that_prove_little_are_executed_alone() -> None:
    made = mutants(CODE)
    caught = f"try:\n    {WEAK}finally:\n    pass\n"
    assert not separable.proves(caught)
    plain, _ = results(CODE, WEAK, made, lambda trial: run_program(trial.program), batched=True)
    found, executions = results(CODE, caught, made, lambda trial: run_program(trial.program), batched=True)
    assert found == plain
    survivors = [each for each in found if each.killed is False]
    assert executions == {"mutants": 1, "mutant": len(survivors), "inputs": len(survivors)}


def test_faults_of_the_infrastructure_decide_nothing() -> None:
    made = mutants(CODE, 3)
    found, executions = results(CODE, CHECKS, made, lambda trial: None, batched=True)
    assert [each.killed for each in found] == [None] * 3
    assert executions == {"mutants": 1, "mutant": 3}


@pytest.mark.parametrize(
    "text",
    [
        "import os\n",
        "from sys import argv\n",
        "from .other import g\n",
        "from solution import f\n",
        "f = open\n",
        "print(eval('1'))\n",
        "import numpy as np\nnp.save('a', 1)\n",
        "from numpy import testing\n",
        "import random\n",
        "import decimal\ndecimal.getcontext().prec = 3\n",
        "import math\nmath.pi = 3\n",
        "import string\nstring.letters['a'] = 3\n",
        "from math import *\n",
        "setattr(f, 'x', 1)\n",
        "print.x = 1\n",
        "del list.append\n",
        "def f(:\n",
        "x = 1\n" * 9_000,
    ],
)
def test_programs_that_reach_further_than_their_memory_are_executed_alone(text: str) -> None:
    assert separable.modules(text, CHECKS) is None
    assert separable.modules(CODE, text) is None


def test_the_modules_of_a_program_are_named_so_that_the_sandbox_prepares_them() -> None:
    code = "import numpy as np\nfrom collections.abc import Sequence\nimport math\n" + CODE
    assert separable.modules(code, "import re\n" + CHECKS) == ("collections", "math", "numpy", "re")
    program = batching.program(code, CHECKS, [CODE], KEY, SUBJECT, TRIED)
    assert program is not None
    assert program.tests.startswith("# collections math numpy\n")
    assert "textwrap" not in program.tests


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (CHECKS, True),
        ("for x in (1, 2):\n    assert f(x)\nassert f(3)\n", True),
        ("def test_f():\n    assert f(1)\n\ntest_f()\n", True),
        ("def wanted(x):\n    return x\n\nassert f(1) == wanted(1)\n", True),
        ("for x in f(3):\n    assert g(x)\n", False),
        ("if f(1):\n    assert f(2)\n", False),
        ("assert True\n", False),
        ("def test_f():\n    assert f(1)\n", False),
        ("def test_f():\n    assert f(1)\n\nrun(test_f)\n", False),
        ("def test_f():\n    assert f(1)\n\ntest_f()\nassert f(test_f)\n", False),
        ("def test_f():\n    if f(0):\n        return\n    assert f(1)\n\ntest_f()\n", False),
        ("def test_f():\n    yield\n    assert f(1)\n\ntest_f()\n", False),
        ("@skip\ndef test_f():\n    assert f(1)\n\ntest_f()\n", False),
        ("def outer():\n    def inner():\n        assert f(1)\n    inner()\nouter()\nassert f(2)\n", False),
        ("class Test:\n    def check(self):\n        assert f(1)\n\nassert f(Test())\n", False),
        ("try:\n    assert f(1)\nexcept Exception:\n    pass\nassert f(2)\n", False),
        ("with suppress(AssertionError):\n    assert f(1)\nassert f(2)\n", False),
        ("async def check():\n    assert f(1)\n\ncheck()\nassert f(2)\n", False),
        ("def f(:\n", False),
    ],
)
def test_what_the_end_of_tests_proves(tests: str, expected: bool) -> None:
    assert separable.proves(tests) is expected


@given(st.text("ab\n", max_size=9), st.lists(st.text("ab\n", max_size=9), max_size=3))
def test_differences_give_the_texts_back(code: str, others: list[str]) -> None:
    found = separable.differences(code, others)
    assert [code[:start] + text + code[len(code) - end :] for start, end, text in found] == others
