"""How tests are compiled, run here with a witness that records its callers."""

from __future__ import annotations

import ast
import contextlib
import functools
import sys
import traceback
import types
from typing import Any

import pytest

from codealign.runner.instrument import WITNESSES, CompiledTests, compile_code, sites


class Recorder:
    """Replaces the native `assertion`: counts the calls from instructions that may call it."""

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
    # Called through C like the real ones, so that the interpreter's current instruction is the call itself.
    checked, called = functools.partial(recorder.checked), functools.partial(recorder.called)
    witnesses = {"assertion": recorder, "checked": checked, "ran": called, "main": main}
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
        f"text = '{'x' * 40_000}'; assert len(text) == 40_000",
        f"import unittest\ntext = '{'x' * 40_000}'; unittest.TestCase().assertEqual(len(text), 40_000)",
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


CASES = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(1, 1)\n"


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ("def test_f():\n    assert f() == 1", "the tests define test_f and nothing calls it"),
        ("def check():\n    assert f() == 1", "the tests define check and nothing calls it"),
        ("def test_f(): pass\ndef test_g(): pass", "the tests define test_f, test_g and nothing calls them"),
        (
            "".join(f"def test_{n}(): pass\n" for n in range(5)),
            "test_0, test_1, test_2 and 2 more and nothing calls them",
        ),
        ("class TestF:\n    def test_a(self): assert 1", "class TestF has 1 test method and nothing runs it"),
        (CASES + "    def test_b(self): pass\n", "class T has 2 test methods and nothing runs them"),
        (CASES + "if 0: unittest.main()", "ran to the end without executing an assertion"),
        ("print(f() == 1)", "the tests only print"),
        ("f()", "the tests contain no assertion"),
        ("", "the tests contain no assertion"),
        ("def show(): print(1)\nshow()", "the tests only print"),
        ("def test_f(): assert 1\nfor each in list(globals().values()): each", "ran to the end"),
    ],
)
def test_what_is_missing_is_told(tests: str, said: str) -> None:
    compiled = CompiledTests(tests, "unique", dict.fromkeys(WITNESSES), unittest="unittest" in tests)
    assert said in compiled.missing


@pytest.mark.parametrize(
    ("tests", "required"),
    [
        (CASES, {"test_a"}),
        (CASES + "    def test_a(self): pass\n", {"test_a"}),
        (CASES + "    test_a = None\n", set()),
        (CASES + "del T\n", set()),
        (CASES + "T = None\n", set()),
        (CASES.replace("class", "@made_otherwise\nclass"), set()),
        (CASES.replace("    def", "    @made_otherwise\n    def"), set()),
        (CASES.replace("    def", "    @unittest.skip('no')\n    def"), {"test_a"}),
        (CASES.replace("unittest.TestCase", "object"), set()),
        (CASES + "class U(T):\n    async def test_b(self): pass\n", {"test_a", "test_b"}),
        ("def make():\n    " + CASES.replace("\n", "\n    "), set()),
        ("import abc\n" + CASES + "    @abc.abstractmethod\n    def make(self): pass\n", set()),
    ],
)
def test_methods_that_have_to_run_are_read_from_the_text(tests: str, required: set[str]) -> None:
    compiled = CompiledTests(tests, "unique", dict.fromkeys(WITNESSES), unittest=True)
    assert compiled.cases is not None
    assert {name for _, name in compiled.cases.required} == required


@pytest.mark.parametrize(
    ("tests", "held"),
    [
        ("if 1 != 1:\n    raise AssertionError", [True]),
        ("if 1 == 1:\n    raise AssertionError", [False]),
        ("if 1 == 1:\n    pass\nelse:\n    raise AssertionError('no')", [True]),
        ("if 0:\n    pass\nelif 1:\n    pass\nelse:\n    raise AssertionError", [True]),
        ("if 0:\n    raise AssertionError\nelif 0:\n    pass", [True]),
        ("if 0:\n    print()\n    raise AssertionError", [True]),
        ("if 0:\n    raise ValueError", []),
        ("if 0:\n    pass\nelse:\n    pass", []),
        ("for n in range(3):\n    if n == 2: break\nelse:\n    raise AssertionError", [True]),
        ("for n in range(3):\n    for m in range(3):\n        break\nelse:\n    raise AssertionError", [False]),
        ("match 1:\n    case 1: pass\n    case _: raise AssertionError", [True]),
        ("def same(a):\n    if a: return\n    raise AssertionError\nsame(1)", [True]),
        ("def same(a):\n    if a: return\n    raise AssertionError\nsame(0)", [False]),
        ("def stub():\n    raise AssertionError\nstub()", []),
        ("try:\n    pass\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError", [False]),
        ("try:\n    int('x')\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError", []),
    ],
)
def test_a_condition_that_raises_is_an_assertion(tests: str, held: list[bool]) -> None:
    recorder = Recorder()
    compiled = CompiledTests(tests, "unique", {**dict.fromkeys(WITNESSES), "assertion": recorder}, unittest=False)
    recorder.known = set(sites(compiled.code))
    with contextlib.suppress(AssertionError):
        exec(compiled.code, {"__name__": "__main__"})
    assert recorder.held == held


@pytest.mark.parametrize(
    "status", ["unittest.main(exit=False)", "not unittest.main(exit=False).result.wasSuccessful()"]
)
@pytest.mark.parametrize("leave", ["sys.exit", "exit", "raise SystemExit"])
def test_an_exit_with_the_outcome_of_the_tests_is_no_early_end(leave: str, status: str) -> None:
    program = types.SimpleNamespace(result=types.SimpleNamespace(wasSuccessful=lambda: True))
    tests = f"import sys, unittest\n{leave}({status})\nassert True\n"
    assert run(tests, main=lambda **_: program)[0].held == [True]
    program.result.wasSuccessful = lambda: False
    if "not" in status:
        with pytest.raises(SystemExit):
            run(tests, main=lambda **_: program)


def test_a_traceback_shows_the_line_of_an_assertion() -> None:
    tests = "import unittest\ncase = unittest.TestCase()\nvalue = 2\ncase.assertEqual(1, value)\n"
    with pytest.raises(AssertionError) as raised:
        run(tests)
    assert [
        entry.lineno for entry in traceback.extract_tb(raised.value.__traceback__) if entry.filename == "<tests>"
    ] == [4]
