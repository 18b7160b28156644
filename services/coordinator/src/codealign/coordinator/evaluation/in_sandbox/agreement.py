"""Compares a solution's outputs with the expected ones. Runs in the sandbox, where no solution runs.

Standard library only, and as little of it as in `calls.py`. The rules are EvalPlus' (evalplus 0.3.1,
`evalplus/eval/__init__.py` and `_special_oracle.py`), written anew: equal values agree; where a tolerance applies,
numbers agree that NumPy's `allclose` with rtol 1e-7 takes for equal; some problems have rules of their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

RTOL = 1e-7
FLOAT_ATOL = 1e-6
"""Where the expected value is made of floats and the problem names no tolerance."""
_INT64, _UINT64 = -(2**63), 2**64
_FLOAT_MARK = ',"float":1'
"""As `calls.py` has it."""


class Output:
    """What came back from one call, as `calls.py` writes it down.

    Args:
        text: The normal form. Empty: it was too long.
        digest: The normal form's digest, which counts only if the text is empty.
        kind: The type's name.
        floats: Whether it is made of floats.
    """

    def __init__(self, text: str, digest: str, kind: str, floats: bool) -> None:
        self.text, self.kind, self.floats = text, kind, floats
        self._digest = digest

    def equals(self, other: Output) -> bool:
        """Python calls the values equal."""
        if self.text and other.text:
            return _unmarked(self.text) == _unmarked(other.text)
        return self.digest() == other.digest()

    def digest(self) -> str:
        """The digest of a text that is there is taken anew."""
        if not self.text:
            return self._digest
        import hashlib  # as in `calls.py`

        return hashlib.blake2b(_unmarked(self.text).encode(), digest_size=16).hexdigest()

    def value(self) -> Any:
        """The value, numbers in their plainest type.

        Raises:
            ValueError: It was too long to be kept.
        """
        if not self.text:
            raise ValueError("too long to be kept")
        return _value(json.loads(self.text))


def _unmarked(text: str) -> str:
    return text.replace(_FLOAT_MARK, "")


def output(given: list[Any]) -> Output:
    """An output out of JSON."""
    text, digest, kind, floats = given
    return Output(text, digest, kind, bool(floats))


def _value(given: Any) -> Any:
    if isinstance(given, list):
        return [_value(item) for item in given]
    if not isinstance(given, dict):
        return given
    if "int" in given and "float" in given:  # large and whole
        return float(int(given["int"], 16))
    ((kind, of),) = given.items()
    if kind == "tuple":
        return tuple(_value(item) for item in of)
    if kind == "int":
        return int(of, 16)
    if kind == "float":
        return float(of)
    if kind == "complex":
        return complex(*map(_value, of))
    return _Opaque()


class _Opaque:
    """A value that takes no part in arithmetic."""


def close(have: Any, want: Any, atol: float) -> bool:
    """Numbers, or lists and tuples of them of one shape, that differ by at most atol + rtol * |want|."""
    if isinstance(want, (list, tuple)):
        if not isinstance(have, (list, tuple)) or len(have) != len(want):
            return False
        return all(close(*pair, atol) for pair in zip(have, want, strict=True))
    if not all(isinstance(each, (int, float, complex)) for each in (have, want)):
        return False
    if any(isinstance(each, int) and not _INT64 <= each < _UINT64 for each in (have, want)):
        return False
    if have == want:
        return True
    finite = not isinstance(want, float) or math.isfinite(want)
    return finite and abs(have - want) <= atol + RTOL * abs(want)


class Case:
    """One call to judge.

    Args:
        part: Name of the set of inputs.
        number: Position in it.
        arguments: Only for rules that look at them.
        have: The solution's output.
        want: The reference's.
    """

    def __init__(self, part: str, number: int, arguments: list[Any], have: Output, want: Output) -> None:
        self.part, self.number, self.arguments = part, number, arguments
        self.have, self.want = have, want


class Rule:
    """How a problem's outputs are judged, with the tolerance as it stands.

    As in EvalPlus, the first expected value made of floats sets a tolerance for the rest of its part.
    """

    def __init__(self, name: str, atol: float) -> None:
        self._special = _SPECIAL[name]
        self._name, self._given, self._atol, self._part = name, atol, atol, ""

    def agrees(self, case: Case) -> bool:
        """The output is right."""
        if case.part != self._part:
            self._part, self._atol = case.part, self._given
        try:
            return self._judge(case)
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            return False

    def _judge(self, case: Case) -> bool:
        right = self._special(case, self._atol)
        if self._name == "find-zero":
            return right
        if self._atol == 0 and case.want.floats:
            self._atol = FLOAT_ATOL
        if right or self._atol == 0:
            return right
        if case.have.kind != case.want.kind:
            return False
        return close(case.have.value(), case.want.value(), self._atol)


def _equal(case: Case, _: float) -> bool:
    return case.have.equals(case.want)


def _not_none(case: Case, _: float) -> bool:
    """Only whether there is a result counts."""
    want = case.want.text != "null"
    return (case.have.text == "1") == want if case.have.kind == "bool" else (case.have.text != "null") == want


def _find_zero(case: Case, atol: float) -> bool:
    """HumanEval/32: any root of the polynomial will do."""
    (coefficients,) = case.arguments
    root = case.have.value()
    value = sum(factor * math.pow(root, power) for power, factor in enumerate(coefficients))
    return bool(abs(value) <= atol)


def _surface_area(case: Case, atol: float) -> bool:
    """Mbpp/581: the height may be the pyramid's own as well as the slant."""
    if _equal(case, atol):
        return True
    edge, height = case.arguments
    area = edge**2 + 2 * edge * math.sqrt((edge / 2) ** 2 + height**2)
    return bool(abs(case.have.value() - round(area)) <= atol)


def _digit_distance(case: Case, atol: float) -> bool:
    """Mbpp/558: the shorter number may be filled up with zeros."""
    if _equal(case, atol):
        return True
    first, second = (str(number) for number in case.arguments)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return bool(case.have.value() == sum(abs(int(one) - int(other)) for one, other in pairs))


def _zero_too(case: Case, atol: float) -> bool:
    """Mbpp/295: whether 1 has divisors is left open."""
    return _equal(case, atol) or bool(case.have.value() == 0)


_SPECIAL: dict[str, Callable[[Case, float], bool]] = {
    "equal": _equal,
    "set": _equal,  # `calls.py` has made sets of the outputs
    "not-none": _not_none,
    "find-zero": _find_zero,
    "surface-area": _surface_area,
    "digit-distance": _digit_distance,
    "zero-too": _zero_too,
    "anything": lambda *_: True,
}


def cases(folder: str = ".") -> Iterator[tuple[Rule, Case]]:
    """Each call with the rule that judges it, from the files that the judge put there."""

    def read(name: str) -> list[Any]:
        """A line for each execution that made some of the calls."""
        with open(f"{folder}/{name}", encoding="utf-8") as file:
            return [each for line in file.read().split("\n") for each in json.loads(line)]

    with open(f"{folder}/asked.json", encoding="utf-8") as file:
        asked = json.load(file)
    expected, had = read("expected.jsonl"), read("outputs.jsonl")
    rule = Rule(asked["rule"], asked["atol"])
    number = 0
    for part, count in asked["parts"]:
        for within in range(count):
            arguments = asked["inputs"][number] if asked["inputs"] else []
            yield rule, Case(part, within, arguments, output(had[number]), output(expected[number]))
            number += 1


def explain(case: Case) -> str:
    """A line for a person."""

    def shown(value: Output) -> str:
        text = value.text or f"(long, {value.digest()[:8]})"
        return f"{text if len(text) <= 160 else text[:160] + '...'} ({value.kind})"

    return f"input {case.number} ({case.part}): expected {shown(case.want)}, got {shown(case.have)}"
