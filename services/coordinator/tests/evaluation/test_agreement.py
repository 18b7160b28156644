"""Comparison of outputs: the programs that run in the sandbox, imported here as modules."""

# ruff: noqa: DTZ001 - datetimes without a time zone are valid outputs.

from __future__ import annotations

import enum
import json
import math
import os
import re
import sys
from array import array
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from codealign.coordinator.evaluation import judging
from codealign.coordinator.evaluation.in_sandbox import agreement, calls
from codealign.coordinator.evaluation.in_sandbox.agreement import Case, Rule, output
from codealign.coordinator.evaluation.mbpp_inputs import RULE_OF_ENTRY_POINT
from codealign.coordinator.evaluation.problems import RULES


class Colour(enum.IntEnum):
    RED = 1


class Flatterer:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Point(NamedTuple):
    x: int
    y: int


NAN = float("nan")
PARIS = timezone(timedelta(hours=1), "Paris")


def judged(have: Any, want: Any, rule: str = "equal", atol: float = 0.0, arguments: list[Any] | None = None) -> bool:
    if rule == "set":
        have, want = set(have), set(want)
    case = Case("base", 0, arguments or [], output(calls.described(have)), output(calls.described(want)))
    return Rule(rule, atol).agrees(case)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (1, 1.0),
        (True, 1),
        (0.0, -0.0),
        ([1, "a", None], [1.0, "a", None]),
        ((1, (2,)), (1, (2.0,))),
        ({1, 2}, frozenset({2, 1.0})),
        ({"a": [1], "b": 2}, {"b": 2.0, "a": [True]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(x=1), {"x": 1}),
        ({1: 2}.keys(), {1}),
        (Colour.RED, 1),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 3), Fraction(2, 6)),
        (Fraction(10**400), 10**400),
        (Fraction(10**400, 3), Fraction(2 * 10**400, 6)),
        (Fraction(1, 3**20_000), Fraction(2, 2 * 3**20_000)),
        (Decimal("1E+400"), 10**400),
        (Decimal("1E+999999999"), Decimal("10E+999999998")),
        (Decimal("Infinity"), float("inf")),
        (2**80, 2**80),
        (2.0**80, 2**80),
        (1e300, int(1e300)),
        ([-(2.0**63), 2.0**63], [-(2**63), 2**63]),
        ({2.0**70, 2**71, 1}, {2**70, 2.0**71, True}),
        ({2.0**70: 2.0**70}, {2**70: 2**70}),
        (deque([1, 2]), deque([1.0, 2], maxlen=5)),
        (range(0), range(5, 5)),
        (range(0, 3, 2), range(0, 4, 2)),
        (range(4, 5, 7), range(4, 5)),
        (range(10**30), range(10**30)),
        (date(2024, 2, 29), date(2024, 2, 29)),
        (datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 12)),
        (datetime(2024, 1, 1, 1, tzinfo=PARIS), datetime(2024, 1, 1, 0, tzinfo=UTC)),
        (clock(1, tzinfo=PARIS), clock(0, tzinfo=UTC)),
        (clock(1, 2), clock(1, 2)),
        (timedelta(hours=24), timedelta(days=1)),
        (PARIS, timezone(timedelta(minutes=60))),
        (array("i", [1, 2]), array("d", [1.0, 2.0])),
        (memoryview(b"ab"), b"ab"),
        (Ellipsis, ...),
        (NotImplemented, NotImplemented),
        ([int, len, OrderedDict], [int, len, OrderedDict]),
        (re.compile("a", re.I), re.compile("a", re.I)),
        (UUID(int=7), UUID(int=7)),
        (PurePosixPath("a/b"), Path("a//b")),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Point(1, 2), (1, 2)),
        (MappingProxyType({"a": 1}), {"a": 1.0}),
        (ChainMap({"a": 1}, {"a": 2, "b": 3}), {"a": 1, "b": 3}),
        (UserDict(a=[1]), {"a": [1]}),
        (UserList([1, "a"]), [1, "a"]),
        (UserString("a"), "a"),
        (SimpleNamespace(a=1, b=2), SimpleNamespace(b=2, a=1.0)),
        (ip_address("10.0.0.1"), ip_address("10.0.0.1")),
        (ip_network("10.0.0.0/8"), ip_network("10.0.0.0/8")),
        (PureWindowsPath("A/b"), PureWindowsPath("a\\B")),
        ([str.upper, dict.get], [str.upper, dict.get]),
        ([list[int], int | None], [list[int], None | int]),
        (slice(1, 2), slice(1.0, 2, None)),
        ([type(None), int], [type(None), int]),
        (bytearray(b"a"), b"a"),
        (float("inf"), float("inf")),
        (3 + 0j, 3),
        ("\ud800", "\ud800"),
        (list(range(3000)), list(range(3000))),
        (["x" * 100_000], ["x" * 100_000]),
    ],
)
def test_what_python_calls_equal_agrees(have: Any, want: Any) -> None:
    assert have == want
    assert judged(have, want)
    assert judged(want, have)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ([1], (1,)),
        ("1", 1),
        (b"a", "a"),
        (None, False),
        (Decimal("0.1"), 0.1),
        (Decimal("1E+400"), float("inf")),
        (Decimal("1E+999999999"), Decimal("1E+999999998")),
        (Decimal("NaN"), Decimal("NaN")),
        (str.upper, str.lower),
        (ip_address("10.0.0.1"), "10.0.0.1"),
        (list[int], list[str]),
        ({1: 2}, [[1, 2]]),
        ("nan", NAN),
        ([1, 2], [2, 1]),
        (2**80, 2**80 + 1),
        (deque([1]), [1]),
        (deque([1, 2]), deque([2, 1])),
        (range(3), [0, 1, 2]),
        (range(3), range(4)),
        (date(2024, 1, 1), datetime(2024, 1, 1)),
        (date(2024, 1, 1), "2024-01-01"),
        (datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),
        (timedelta(1), timedelta(2)),
        (array("i", [1]), [1]),
        (int, str),
        (int, "int"),
        (type(None), None),
        (SimpleNamespace(a=1), {"a": 1}),
        (SimpleNamespace(a=1), SimpleNamespace(a=2)),
        (slice(1), [None, 1, None]),
        (UserList([1]), (1,)),
        (..., None),
        (re.compile("a"), re.compile("a", re.I)),
        (',"float":1', ""),
        (list(range(3000)), list(range(2999, -1, -1))),
        (["x" * 100_000], ["x" * 99_999]),
    ],
)
def test_what_python_calls_different_does_not_agree(have: Any, want: Any) -> None:
    assert have != want
    assert not judged(have, want)


def test_an_object_is_equal_to_nothing_whatever_it_says() -> None:
    assert Flatterer() == 1
    for want in (1, [1], None, "x"):
        assert not judged(Flatterer(), want)
    assert not judged([Flatterer()], [1])
    assert not judged(NAN, NAN)


def test_large_whole_floats_agree_within_a_tolerance() -> None:
    near = 1e300 * (1 + 1e-15)
    assert near != 1e300
    assert judged(near, 1e300)
    assert judged([near, -near], [1e300, -1e300])
    assert judged(math.pi * 12345678901**2 * 3.3, 12345678901 * 12345678901 * 3.3 * math.pi)
    assert not judged(1.1e300, 1e300)
    assert not judged(2**80 + 1, 2.0**80), "the type must be the same"
    assert not judged(2**80 + 1, 2**80, atol=1e-6), "whole numbers are compared exactly"
    assert not judged(float("inf"), 1e300)


def test_what_holds_itself_is_equal_to_nothing() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert not judged(endless, endless)


def test_streams_during_a_call_are_text_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def uses(way: int) -> Any:
        outputs: tuple[Any, ...] = (sys.stdout, sys.stderr)
        for stream in outputs:
            print("x", "\ud800", file=stream, flush=True)
            stream.buffer.write(b"x")
            os.write(stream.fileno(), b"x")
            assert (stream.encoding, stream.isatty(), stream.mode, stream.closed) == ("utf-8", False, "w", False)
            stream.writelines(["x"])
            stream.reconfigure(line_buffering=True)
        assert (sys.stdout.name, sys.stderr.name, sys.stdin.name) == ("<stdout>", "<stderr>", "<stdin>")
        with pytest.raises(EOFError):
            input("?")
        assert (sys.stdin.read(), sys.stdin.buffer.read(), list(sys.stdin), sys.stdin.readline()) == ("", b"", [], "")
        for stream in (sys.stdin, *outputs):
            if way == 0:
                stream.close()
            elif way == 1:
                stream.detach()
            elif way == 2:
                os.close(stream.fileno())
        if way == 3:
            sys.stdout = sys.stdin = None
        return way

    written: list[bytes] = []
    monkeypatch.setattr(calls, "_write", written.append)
    monkeypatch.setattr(calls, "_set_timers", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    asked = {"inputs": [[way] for way in (0, 1, 2, 3, 4)], "seconds": [], "as_set": False}
    Path(calls.INPUTS_FILE).write_text(json.dumps(asked))
    before = (sys.stdin, sys.stdout, sys.stderr)
    assert list(calls.answers(uses)) == [True] * 5
    assert (sys.stdin, sys.stdout, sys.stderr) == before
    outputs = json.loads(written[0].removeprefix(calls.MARKER).partition(calls.SEPARATOR)[0])
    assert [each[0] for each in outputs] == ["0", "1", "2", "3", "4"]


def test_floats_agree_within_a_tolerance() -> None:
    assert judged(0.1 + 0.2, 0.3)
    assert judged([1.0000001, 2.0], [1.0, 2.0])
    assert not judged(0.3001, 0.3)
    assert judged(0.30005, 0.3, atol=1e-4)
    assert not judged(1, 1.5)
    assert not judged((1.0000001,), [1.0]), "the type must be the same"
    assert not judged([1.0000001], [1.0, 2.0])
    assert not judged([1.5, "a"], [1.0, "a"])
    assert not judged("a", 1.0)
    assert judged(1.0000001 + 1j, 1 + 1j, atol=1e-4)
    assert not judged(float("inf"), 1.0)
    assert not judged(1.0, float("inf"))


def test_a_tolerance_once_set_holds_for_the_rest_of_its_part() -> None:
    rule = Rule("equal", 0)

    def agrees(part: str, have: Any, want: Any) -> bool:
        return rule.agrees(Case(part, 0, [], output(calls.described(have)), output(calls.described(want))))

    assert not agrees("base", 10**9 + 1, 10**9)
    assert agrees("base", 1.5, 1.5)
    assert agrees("base", 10**9 + 1, 10**9), "as in EvalPlus"
    assert not agrees("plus", 10**9 + 1, 10**9)


def test_rules_of_their_own() -> None:
    assert judged([2, 1, 1], (1, 2), "set")
    assert not judged([2], (1, 2), "set")
    assert judged(object(), "a match", "not-none")
    assert judged(True, "a match", "not-none")
    assert not judged(False, "a match", "not-none")
    assert not judged(None, "a match", "not-none")
    assert judged(None, None, "not-none")
    assert judged(-0.5, None, "find-zero", 1e-4, [[1, 2]])
    assert not judged(0.5, None, "find-zero", 1e-4, [[1, 2]])
    assert not judged("x", None, "find-zero", 1e-4, [[1, 2]])
    assert not judged(1e300, None, "find-zero", 1e-4, [[1, 2, 3, 4]])
    # Edge 3, height 4: slant 4.27, area 9 + 6 * 4.27 = 34.63
    assert judged(35, 33, "surface-area", 0, [3, 4])
    assert not judged(34, 33, "surface-area", 0, [3, 4])
    assert judged(4, 9, "digit-distance", 0, [1, 23])
    assert not judged(5, 9, "digit-distance", 0, [1, 23])
    assert judged(0, 1, "zero-too")
    assert judged("anything", 1, "anything")
    assert {*RULE_OF_ENTRY_POINT.values(), "equal", "find-zero"} == set(RULES) == set(agreement._SPECIAL)


@pytest.mark.parametrize("rule", sorted(judging.EQUAL_IS_RIGHT))
@pytest.mark.parametrize(
    "value", [1, 0.1, [0.1], -1.5, None, "a", True, False, [], (1, "a"), 2**70, 1e300, "y" * 70_000]
)
def test_an_equal_output_is_right_wherever_no_comparison_is_made(rule: str, value: Any) -> None:
    have, want = output(calls.described(value)), output(calls.described(value))
    for atol in (0.0, 0.1):
        assert Rule(rule, atol).agrees(Case("base", 0, [3, 4], have, want))


def test_by_other_rules_an_equal_output_may_be_wrong() -> None:
    assert not judged(False, False, "not-none")
    assert not judged(5.0, 5.0, "find-zero", 1e-4, [[1, 2]])


def test_a_text_agrees_with_the_digest_of_the_same_text() -> None:
    text = calls.normal(2.0**70)
    long = output(["", calls._digest(text).hexdigest(), "float", True])
    assert output([text, "", "float", True]).equals(long)
    assert long.equals(output([calls.normal(2**70), "", "int", False])), "the mark of a float takes no part"
    assert not output([calls.normal(3), "", "int", False]).equals(long)


def test_the_longest_outputs_leave_as_digests_and_still_agree() -> None:
    outputs = calls._within_total([calls.described(["y" * 60_000]) for _ in range(20)])
    kept = [each for each in outputs if each[0]]
    assert 0 < len(kept) < len(outputs)
    assert sum(len(each[0]) for each in kept) <= calls.TOTAL_LIMIT
    assert output(outputs[0]).equals(output(outputs[-1]))


def test_inputs_are_decoded() -> None:
    given = [
        {"$": "tuple", "of": [1, {"$": "set", "of": [2]}]},
        {"$": "complex", "of": [1, 2]},
        {"$": "dict", "of": [[{"$": "tuple", "of": [1]}, 2]]},
        {"a": [None]},
    ]
    assert calls.decoded(given) == [(1, {2}), 1 + 2j, {(1,): 2}, {"a": [None]}]


def test_a_comparison_reads_its_files(tmp_path: Path) -> None:
    def write(name: str, content: Any) -> None:
        (tmp_path / name).write_text(json.dumps(content))

    write("asked.json", {"rule": "equal", "atol": 0, "parts": [["base", 1], ["plus", 1]], "inputs": []})
    write("expected.jsonl", [calls.described(1), calls.described([2])])
    write("outputs.jsonl", [calls.described(1), calls.described([3])])
    found = [(rule.agrees(case), agreement.explain(case)) for rule, case in agreement.cases(str(tmp_path))]
    assert [agrees for agrees, _ in found] == [True, False]
    assert found[1][1] == "input 0 (plus): expected [2] (list), got [3] (list)"
