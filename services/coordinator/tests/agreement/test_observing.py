"""The observing program, executed by this Python, and reading what it wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codealign.coordinator.agreement import observing
from codealign.coordinator.agreement.calls import Arguments, Subject, read
from codealign.coordinator.agreement.inputs import TESTS, Input
from codealign.coordinator.agreement.observing import CallLimits
from codealign.coordinator.agreement.oracles import Oracle
from codealign.coordinator.agreement.outcomes import Observations, Outcome
from fakes.programs import executed

KEY = "a record's id"
MARKER = observing.marker(KEY).encode()
QUICK = CallLimits(seconds=0.3, total_seconds=20)


def inputs(*calls: Sequence[str]) -> list[Input]:
    return [Input(Arguments(tuple(call)), TESTS) for call in calls]


def observed(code: str, subject: Subject, tried: Sequence[Input], limits: CallLimits = QUICK) -> Observations:
    program = observing.program(code, subject, tried, KEY, limits=limits)
    _, stdout = executed(program)
    return observing.read(stdout, KEY, len(tried))


def told(observations: Observations) -> list[str]:
    return [str(outcome) for outcome in observations.outcomes]


def line(*parts: object) -> bytes:
    return MARKER + b" " + json.dumps(parts).encode() + b"\n"


CODE = """
import os, random, sys, time

class Refused(Exception):
    pass

calls = []

def act(what, items=(), *, by=1):
    if what == "value":
        return [1, 2.5, {"a": {3, 1}}]
    if what == "print":
        print("hello")
        sys.stdout.buffer.write(b"bytes")
    if what == "raise":
        raise Refused("no")
    if what == "leave":
        sys.exit(0)
    if what == "random":
        return random.random()
    if what == "count":
        calls.append(1)
        return len(calls)
    if what == "never":
        while True:
            pass
    if what == "retry":
        while True:
            try:
                return int(input())
            except:
                print("Try again")
    if what == "lazy never":
        return (x for x in iter(int, 1) if x)
    if what == "append":
        items.append(5)
    if what == "default":
        return len(items) * by
    if what == "object":
        return object()
    if what == "input":
        return input()
    if what == "close":
        sys.stdout.close()
    if what == "forge":
        os.write(1, b"\\nunfinished")
        print(MARKED)
    return None

if __name__ == "__main__":
    raise SystemExit("demonstrations do not run")
"""
SUBJECT = Subject("act", "", ())


def test_each_kind_of_outcome_is_observed() -> None:
    expected = {
        "'value'": "returns [1, 2.5, {'a': {1, 3}}]",
        "'print'": "returns None and prints",
        "'raise'": "raises Refused",
        "'leave'": "raises SystemExit",
        "'random'": "differs from call to call",
        "'count'": "differs from call to call",
        "'never'": "does not end",
        "'retry'": "does not end",
        "'lazy never'": "does not end",
        "'append', [1]": "returns None and changes its arguments",
        "'default', [1, 2], by=3": "returns 6",
        "'object'": "was not observed (cannot be compared: an object of type object without public attributes)",
        "'input'": "raises EOFError",
        "'close'": "returns None",
        "Unknown(1)": "was not observed (arguments cannot be made: NameError)",
        "'forge'": "raises NameError",
        "'default', collections.deque([1])": "returns 1",
    }
    tried = [
        *inputs(*([text] for text in expected if "," not in text)),
        *inputs(["'append'", "[1]"], ["'default'", "collections.deque([1])"]),
        Input(Arguments(("'default'", "[1, 2]"), (("by", "3"),)), TESTS),
    ]
    found = dict(zip([str(each.arguments) for each in tried], told(observed(CODE, SUBJECT, tried)), strict=True))
    assert found == expected


def test_what_is_printed_and_changed_belongs_to_the_outcome() -> None:
    code = 'def say(x):\n    print("a" if x < 3 else "b")\n\ndef put(xs):\n    xs += [len(xs)]\n    return 0\n'
    one, same, other = observed(code, Subject("say", "", ()), inputs(["1"], ["2"], ["3"])).outcomes
    assert one.agrees(same)
    assert one.contradicts(other)
    (changed,) = observed(code, Subject("put", "", ()), inputs(["[7]"])).outcomes
    assert (changed.text, changed.changed) == ("0", "[[7, 1]]")
    code = "def put(xs):\n    xs.append(xs if xs[0] else put)\n    return 0\n"
    found = told(observed(code, Subject("put", "", ()), inputs(["[0]"], ["[1]"])))
    assert found == ["was not observed (the arguments cannot be compared after the call)"] * 2


def test_a_program_that_ends_leaves_the_rest_unobserved() -> None:
    code = "import os\n\ndef f(x):\n    if x == 2:\n        os._exit(0)\n    return x\n"
    tried = inputs(["1"], ["2"], ["3"])
    _, stdout = executed(observing.program(code, Subject("f", "", ()), tried, KEY))
    found = observing.read(stdout, KEY, 3, ended="EXITED_EARLY")
    assert [each.kind for each in found.outcomes] == ["returned", "unobserved", "unobserved"]
    assert found.outcomes[1].text == "EXITED_EARLY"


def test_no_call_begins_after_the_total_time() -> None:
    code = "def f(x):\n    while True:\n        pass\n"
    found = observed(code, Subject("f", "", ()), inputs(["1"], ["2"], ["3"]), CallLimits(0.2, 0.3))
    assert [each.kind for each in found.outcomes][-1] == "unobserved"
    assert found.outcomes[0].kind == "timed out"


STUBBORN = """
def stubborn(depth):
    while True:
        try:
            stubborn(depth - 1) if depth else [0 for _ in iter(int, 1)]
        except BaseException:
            pass

def f(x):
    return stubborn(9) if x == 2 else x
"""


def test_a_call_that_catches_its_interruption_is_interrupted_again() -> None:
    found = observed(STUBBORN, Subject("f", "", ()), inputs(["1"], ["2"], ["3"]))
    assert [each.kind for each in found.outcomes][:2] == ["returned", "timed out"]
    # Nearly always it ends. Otherwise the program does.
    assert found.outcomes[2].kind in ("returned", "unobserved")


def test_what_a_call_returns_after_its_interruption_is_not_its_outcome() -> None:
    code = "def f(x):\n    try:\n        while x:\n            pass\n    except:\n        pass\n    return 7\n"
    found = observed(code, Subject("f", "", ()), inputs(["1"], ["0"], ["2"]))
    assert told(found) == ["does not end", "returns 7", "does not end"]


def test_a_call_that_cannot_be_ended_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = bytes.fromhex(observing.OBSERVER).decode()
    impatient = ours.replace("_MOST_RINGS = 1000", "_MOST_RINGS = 1")
    assert impatient != ours
    monkeypatch.setattr(observing, "OBSERVER", impatient.encode().hex())
    found = observed(STUBBORN, Subject("f", "", ()), inputs(["1"], ["2"], ["3"]))
    assert [each.kind for each in found.outcomes] == ["returned", "timed out", "unobserved"]


def test_a_preamble_that_cannot_be_ended_takes_no_outcome_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = bytes.fromhex(observing.OBSERVER).decode()
    monkeypatch.setattr(observing, "OBSERVER", ours.replace("_MOST_RINGS = 1000", "_MOST_RINGS = 1").encode().hex())
    program = observing.program(
        STUBBORN,
        Subject("f", "", ()),
        inputs(["1"], ["3"]),
        KEY,
        oracles=[Oracle(("x",), "x + 0", 2)],
        preamble=["stubborn(9)"],
        limits=QUICK,
    )
    _, stdout = executed(program)
    assert told(observing.read(stdout, KEY, 2, 1)) == ["returns 1", "returns 3"]


def test_methods_views_and_coroutines_are_called() -> None:
    code = """
class Square:
    def __init__(self, side):
        self.side = side
    def area(self):
        return self.side ** 2

class Solution:
    def run(self, xs):
        return xs[::-1]

async def later(x):
    return x + 1
"""
    assert told(observed(code, Subject("Square", "_.area()", ()), inputs(["3"]))) == ["returns 9"]
    assert told(observed(code, Subject("Square", "", ()), inputs(["3"]))) == ["returns Square(side=3)"]
    assert told(observed(code, Subject("Solution().run", "", ()), inputs(["[1, 2]"]))) == ["returns [2, 1]"]
    assert told(observed(code, Subject("later", "", ()), inputs(["1"]))) == ["returns 2"]
    assert told(observed(code, Subject("missing", "", ()), inputs(["1"]))) == ["raises NameError"]


def test_oracles_are_evaluated_with_what_they_need_of_the_tests() -> None:
    code = "def total(xs):\n    return sum(xs)\n"
    tests = """
import missing_module
import math
def twice(xs):
    return [2 * x for x in xs]
assert total([3, 4]) == math.fsum(twice([3, 4])) / 2
"""
    reading = read(code, tests)
    assert reading.subject is not None
    tried = inputs(["[3, 4]"], ["[]"], ["['a']"], ["1", "2"])
    program = observing.program(code, reading.subject, tried, KEY, oracles=reading.oracles, preamble=reading.preamble)
    _, stdout = executed(program)
    ((one, empty, wrong_kind, other_arity),) = observing.read(stdout, KEY, 4, 1).oracles
    assert (str(one), one.floats) == ("returns 7", True)
    assert str(empty) == "returns 0"
    assert wrong_kind.kind == "raised"
    assert other_arity.kind == "unobserved"


def test_the_program_is_the_answer_and_tests_that_pass() -> None:
    program = observing.program("def f(x):\n    return x\n", Subject("f", "", ()), inputs(["1"]), KEY)
    assert program.code == "def f(x):\n    return x\n"
    assert executed(program)[0]
    assert program == observing.program(program.code, Subject("f", "", ()), inputs(["1"]), KEY)


RETURNED = {"kind": "returned", "text": "1"}


@pytest.mark.parametrize(
    "stdout",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(line("input", 0, RETURNED)[:-1], id="no end"),
        pytest.param(line("input", 0, RETURNED)[:40] + b"\n", id="cut"),
        pytest.param(line("input", 0, RETURNED).replace(MARKER, b"0" * 32), id="another marker"),
        pytest.param(b"x" + line("input", 0, RETURNED), id="not at the beginning of a line"),
        pytest.param(line("input", 5, RETURNED), id="no such input"),
        pytest.param(line("input", -1, RETURNED), id="a negative number"),
        pytest.param(line("output", 0, RETURNED), id="another word"),
        pytest.param(line("input", 0, {"kind": "returned"}), id="no text"),
        pytest.param(line("input", 0, {"kind": "right", "text": "1"}), id="no kind"),
        pytest.param(line("input", 0, {**RETURNED, "more": 1}), id="more fields"),
        pytest.param(line("input", 0, {**RETURNED, "floats": 1}), id="a field of another type"),
        pytest.param(line("input", 0, {**RETURNED, "changed": None}), id="a text of another type"),
        pytest.param(line("input", 0, {"kind": "returned", "text": "é"}), id="not in ASCII"),
        pytest.param(line("input", 0, {"kind": "returned", "text": "\ud800"}), id="a surrogate"),
        pytest.param(line("input", 0, {"kind": "returned", "text": "a\nb"}), id="several lines"),
        pytest.param(line("input", 0, {"kind": "returned", "text": "1" * 9_000}), id="too long"),
        pytest.param(line("input", 0, RETURNED) * 2, id="twice"),
        pytest.param(MARKER + b" " + b"[" * 8_000 + b"\n", id="nested deeply"),
        pytest.param(MARKER + b" " + b"9" * 8_000 + b"\n", id="a number of many digits"),
        pytest.param(MARKER + b" \xff\xfe\n", id="no text at all"),
        pytest.param(MARKER + b" null\n", id="null"),
    ],
)
def test_whatever_is_not_a_line_of_the_observer_is_unobserved(stdout: bytes) -> None:
    (outcome,) = observing.read(stdout, KEY, 1).outcomes
    assert outcome.kind == "unobserved"
    assert outcome.text


def test_noise_between_lines_does_not_matter() -> None:
    noise = b"\xff\x00 noise\n" + MARKER + b"\n"
    stdout = noise + line("input", 1, RETURNED) + b"more" + b"\n" + line("input", 0, {**RETURNED, "floats": True})
    assert observing.read(stdout, KEY, 2).outcomes == (Outcome("returned", "1", floats=True), Outcome("returned", "1"))


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_reading_never_fails(noise: bytes, forged: bytes) -> None:
    stdout = noise + b"\n" + MARKER + b" " + forged + b"\n" + line("input", 0, RETURNED)
    found = observing.read(stdout, KEY, 2, 1)
    assert [len(found.outcomes), len(found.oracles), len(found.oracles[0])] == [2, 1, 2]


def test_other_keys_give_other_markers() -> None:
    assert observing.read(line("input", 0, RETURNED), "another", 1).outcomes[0].kind == "unobserved"
