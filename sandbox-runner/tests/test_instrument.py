"""What becomes of a program's tests when they are compiled, run here with a witness that writes down who called it."""

from __future__ import annotations

import ast
import sys
import types
from typing import Any

import pytest

from codealign.runner.instrument import CompiledTests, compile_code, sites


class Recorder:
    """Stands in for the native `assertion`: counts what was called from an instruction that may call it."""

    def __init__(self) -> None:
        self.known: set[tuple[types.CodeType, int]] = set()
        self.held: list[bool] = []
        self.lines: list[int] = []

    def __call__(self, holds: bool) -> None:
        self._count(sys._getframe(1), holds)

    def _count(self, frame: types.FrameType, holds: bool) -> None:
        assert (frame.f_code, frame.f_lasti) in self.known
        self.held.append(holds)
        self.lines.append(frame.f_lineno)

    def checked(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        try:
            result = function(*arguments, **keywords)
        except AssertionError:
            self._count(sys._getframe(1), False)
            raise
        self._count(sys._getframe(1), True)
        return result

    def called(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        frame = sys._getframe(1)
        assert (frame.f_code, frame.f_lasti) in self.known
        return function(*arguments, **keywords)


def run(tests: str, code: str = "", main: Any = None) -> tuple[Recorder, CompiledTests]:
    recorder = Recorder()
    witnesses = {"assertion": recorder, "checked": recorder.checked, "ran": recorder.called, "main": main}
    compiled = CompiledTests(tests, "unique", witnesses, unittest=True)
    recorder.known = set(sites(compiled.code))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile_code(code), names)
    exec(compiled.code, names)
    return recorder, compiled


@pytest.mark.parametrize(
    "tests",
    [
        "async def f():\n    assert True\nimport asyncio\nasyncio.run(f())",
        "class A:\n    def f(self):\n        with open('/dev/null'):\n            assert True\nA().f()",
        "match 1:\n    case 1:\n        assert True",
        "try:\n    raise ValueError\nexcept ValueError:\n    assert True",
        "try:\n    pass\nfinally:\n    assert True",
        "try:\n    raise ExceptionGroup('', [ValueError()])\nexcept* ValueError:\n    assert True",
        "while True:\n    assert True\n    break",
        "for _ in ():\n    pass\nelse:\n    assert True",
        "if 0:\n    pass\nelif 1:\n    assert True, 'message'",
        "'''doc'''\nfrom __future__ import annotations\nassert True",
        "f = lambda: 1\nassert f()",
        "def check(candidate):\n    assert candidate() == 1\ncheck(lambda: 1)",
        "import unittest\nunittest.TestCase().assertEqual(1, 1)",
        "import unittest\nwith unittest.TestCase().assertRaises(ValueError):\n    int('x')",
    ],
)
def test_assertions_are_found_in_every_block(tests: str) -> None:
    recorder, compiled = run(tests)
    assert (recorder.held, compiled.total) == ([True], 1)


def test_a_failure_is_told_where_it_stands_even_if_something_swallows_it() -> None:
    recorder, _ = run("for n in range(2):\n    try:\n        assert n == 9\n    except AssertionError:\n        pass\n")
    assert (recorder.held, recorder.lines) == ([False, False], [3, 3])


def test_an_assertion_behaves_as_before() -> None:
    code = "caught = []\ndef message():\n    caught.append('evaluated')\n    return 'why'\n"
    tests = (
        "assert 1, message()\ntry:\n    assert 0, message()\nexcept AssertionError as e:\n    caught.append(str(e))\n"
    )
    tests += "if caught != ['evaluated', 'why']:\n    raise ValueError(caught)\n"
    recorder, _ = run(tests, code)
    assert recorder.held == [True, False]


def test_no_string_of_the_tests_is_taken_for_a_placeholder() -> None:
    tests = 'for text in ("assertion", "failure", "main"):\n    assert type(text) is str\n'
    assert run(tests)[0].held == [True] * 3


def test_a_long_chain_of_branches_compiles() -> None:
    tests = (
        "n = 0\nif n == 1:\n    pass\n"
        + "".join(f"elif n == {n}:\n    pass\n" for n in range(2, 1500))
        + "assert n == 0"
    )
    ast.parse(tests)
    assert run(tests)[0].held == [True]


def test_unittest_main_is_ours() -> None:
    called = []
    tests = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertTrue(1)\n"
    tests += "if __name__ == '__main__':\n    unittest.main(argv=['x'])"
    _, compiled = run(tests, "", lambda **given: called.append(given))
    assert (called, compiled.total) == ([{"argv": ["x"]}], 1)
    assert compiled.cases is not None
    assert compiled.cases.required == {(3, "test_a")}


def test_tests_without_assertion_have_none() -> None:
    _, compiled = run("# nothing\n")
    assert compiled.total == 0
    assert list(sites(compiled.code)) == []
