"""unittest inside a program's tests: `unittest.main()` that returns, and whether the program changed the module."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from codealign.runner.outline import Cases

_MODULES = (
    *(f"unittest.{name}" for name in ("case", "loader", "result", "runner", "suite", "async_case")),
    "unittest",
    "unittest.mock",
    "numpy.testing",
)
"""What has assertions or runs them."""
_PARTS = (types.FunctionType, types.BuiltinFunctionType, type, tuple)
_SETTINGS = frozenset({"maxDiff", "longMessage"})
"""Attributes of a class that are there to be set, and change messages alone."""
_WRAPPERS = 20
"""So many decorators are looked through."""


class UnittestError(Exception):
    """A test method raised something that is no failed assertion."""


class Main:
    """What `unittest.main()` becomes: it runs every test method of the tests and returns.

    Attributes:
        names: Of the module that the tests are in.
        cases: What the tests define.
        codes: The identities of the code objects of the tests.
        unittest: The module itself, whatever the program calls so. None: it has none.
    """

    names: dict[str, Any]
    cases: Cases
    codes: frozenset[int]
    unittest: Any = None

    def __call__(self, *_arguments: object, **settings: object) -> types.SimpleNamespace:
        """Runs them: neither arguments nor those of the command choose among them.

        The code may call it too: then the tests' own are not there yet.

        Returns:
            What has the `result`, as the instance of `unittest.TestProgram` would.

        Raises:
            AssertionError: A test failed, or did not run.
            UnittestError: A test raised.
        """
        suite = self._suite()
        tests = list(_tests(suite))
        ran = {self._key(test) for test in tests}
        result = self._runner(settings).run(suite)
        if not self.judge(result):
            raise UnittestError("the test runner returned no result")
        # Where a class or a module was skipped, its tests were not begun.
        if result.testsRun < len(tests) and all(
            issubclass(type(test), self.unittest.TestCase) for test, _ in result.skipped
        ):
            raise AssertionError(f"{result.testsRun} of {len(tests)} tests ran")
        lacking = self.cases.required - ran
        if lacking and id(sys._getframe(1).f_code) in self.codes and (lacking := self._due(lacking)):
            raise AssertionError(f"{', '.join(sorted(name for _, name in lacking))} did not run")
        return types.SimpleNamespace(result=result)

    def _due(self, lacking: set[tuple[int, str]]) -> set[tuple[int, str]]:
        """Those of these test methods that are there by now, by the line at which the module of the tests stands."""
        frame: types.FrameType | None = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_name == "<module>" and id(frame.f_code) in self.codes:
                return {key for key in lacking if not frame.f_lineno < key[0] < self.cases.last_main}
            frame = frame.f_back
        return lacking

    def _suite(self) -> Any:
        unittest = self.unittest
        loader = unittest.TestLoader()
        named = sorted(self.names.items())
        # By their real class: `isinstance` believes what an object says of itself.
        classes = [each for _, each in named if issubclass(type(each), type) and issubclass(each, unittest.TestCase)]
        # One that is abstract is there for others to derive from.
        concrete = [each for each in dict.fromkeys(classes) if not getattr(each, "__abstractmethods__", None)]
        suite = unittest.TestSuite(map(loader.loadTestsFromTestCase, concrete))
        # A `load_tests` of the code would choose among them.
        return self.names["load_tests"](loader, suite, None) if self.cases.loads_tests else suite

    def _runner(self, settings: dict[str, object]) -> Any:
        given, plain = settings.get("testRunner"), self.unittest.TextTestRunner
        if isinstance(given, plain):
            return given
        # What decides how the tests run, and not which.
        chosen = {name: settings[name] for name in ("buffer", "warnings") if name in settings}
        if isinstance(given, type) and issubclass(given, plain):
            with contextlib.suppress(TypeError):
                return given(**chosen)
            return given()
        return plain(**chosen)

    def judge(self, result: Any) -> bool:
        """Says what became of a run of test cases.

        Args:
            result: What the run returned.

        Returns:
            Whether it was one: much else is called `run`.

        Raises:
            AssertionError: A test failed, or did not run.
            MemoryError: The first test that raised had no memory.
            UnittestError: A test raised something else.
        """
        if self.unittest is None or not issubclass(type(result), self.unittest.TestResult):
            return False
        if result.errors:
            last_line = result.errors[0][1].strip().rpartition("\n")[2]
            if last_line.partition(":")[0] == MemoryError.__name__:
                raise MemoryError("in a test")
            raise UnittestError(f"{len(result.errors)} of {result.testsRun} tests raised; the first: {last_line}")
        if result.failures:
            raise AssertionError(f"{len(result.failures)} of {result.testsRun} tests failed")
        if result.unexpectedSuccesses:
            raise AssertionError(f"{len(result.unexpectedSuccesses)} of {result.testsRun} tests passed unexpectedly")
        for test, reason in result.skipped:
            if not self._may_be_skipped(test):
                raise AssertionError(f"{test} was skipped, and not by the tests: {reason}")
        return True

    def _may_be_skipped(self, test: Any) -> bool:
        test = getattr(test, "test_case", test)  # of a subtest
        return self.cases.may_be_skipped(self._key(test), [each.__name__ for each in type(test).__mro__])

    def _key(self, test: Any) -> tuple[int, str] | None:
        """The first line and the name of the function of the tests that a test calls."""
        function = getattr(type(test), getattr(test, "_testMethodName", ""), None)
        for _ in range(_WRAPPERS):
            function = getattr(function, "__wrapped__", function)
        code = getattr(function, "__code__", None)
        return (code.co_firstlineno, code.co_name) if code is not None and id(code) in self.codes else None


def _tests(suite: Any) -> Iterator[Any]:
    """The tests of a suite and of those inside it."""
    waiting = [suite]
    while waiting:
        each = waiting.pop()
        if hasattr(each, "countTestCases") and hasattr(each, "__iter__"):
            waiting += each
        else:
            yield each


def _state(watched: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
    """The identity of every part that the verdict of a test method goes through: modules and names in them."""
    parts: list[object] = []
    for module, name in watched:
        found = vars(sys.modules.get(module) or object).get(name)
        parts += [sys.modules.get(module), found]
        if isinstance(found, type) and found.__module__.startswith("unittest"):
            parts += [
                value for each, value in vars(found).items() if each not in _SETTINGS and not _is_note(each, value)
            ]
    return tuple(id(part) for part in parts)


def _is_note(name: str, value: object) -> bool:
    """Whether it is what a suite notes of a class whose tests it runs."""
    return name == "tearDown_exceptions" or (name == "_classSetupFailed" and value is False)


def unchanged() -> Callable[[], bool]:
    """To be called before the program begins; what it returns, after the tests, says whether unittest is the same."""
    modules = [(name, vars(sys.modules[name])) for name in _MODULES if name in sys.modules]
    watched = tuple((module, name) for module, names in modules for name in names if isinstance(names[name], _PARTS))

    # What it compares with is in its defaults: `native` sees to it that these stay.
    def check(
        watched: tuple[tuple[str, str], ...] = watched,
        before: tuple[int, ...] = _state(watched),
        state: Callable[[tuple[tuple[str, str], ...]], tuple[int, ...]] = _state,
    ) -> bool:
        return state(watched) == before

    return check


def load(tests: str, *, mock: bool) -> tuple[Any, tuple[type, ...]]:
    """Imports what the tests' assertions come from, before the program could put something else in its place.

    Args:
        tests: Their text.
        mock: Whether some are a mock's.

    Returns:
        unittest, and the classes whose methods they are.
    """
    unittest = importlib.import_module("unittest")
    kinds: list[type] = [unittest.TestCase]
    # An exception that ends a test method as if it had come to its end, which anything could raise.
    vars(sys.modules["unittest.case"])["_ShouldStop"] = ()
    if "IsolatedAsyncioTestCase" in tests:
        importlib.import_module("unittest.async_case")
    if mock:
        kinds.append(importlib.import_module("unittest.mock").NonCallableMock)
    if "testing" in tests:
        with contextlib.suppress(ImportError):
            importlib.import_module("numpy.testing")
    return unittest, tuple(kinds)
