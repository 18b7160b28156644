"""unittest inside a program's tests: a `unittest.main()` that returns, and detection of changes to the module."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from codealign.runner import sources
from codealign.runner.outline import Cases

_MODULES = (
    *(f"unittest.{name}" for name in ("case", "loader", "result", "runner", "suite", "async_case")),
    "unittest",
    "unittest.mock",
    "numpy.testing",
)
"""Modules that contain assertions or run them."""
_PARTS = (types.FunctionType, types.BuiltinFunctionType, type, tuple)
_SETTINGS = frozenset({"maxDiff", "longMessage", "sortTestMethodsUsing"})
"""Class attributes that are meant to be set and affect only messages, or the order of tests."""
_WRAPPERS = 20
"""Maximum number of decorators to unwrap."""


class UnittestError(Exception):
    """A test method raised something other than a failed assertion."""


class Main:
    """Replacement for `unittest.main()`: runs every test method of the tests and returns.

    Attributes:
        names: Globals of the module that contains the tests.
        cases: What the tests define.
        codes: Identities of the tests' code objects.
        unittest: The real module, whatever the program binds to its name. None if it is not used.
    """

    names: dict[str, Any]
    cases: Cases
    codes: frozenset[int]
    unittest: Any = None

    def __call__(self, *_arguments: object, **settings: object) -> types.SimpleNamespace:
        """Run the tests. Neither arguments nor the command line select among them.

        The code may call this too, before the tests' own cases are defined.

        Returns:
            An object with a `result`, like an instance of `unittest.TestProgram`.

        Raises:
            AssertionError: A test failed or did not run.
            UnittestError: A test raised an exception.
        """
        suite = self._suite()
        tests = list(_tests(suite))
        ran = {self._key(test) for test in tests}
        result = self._runner(settings).run(suite)
        if not self.judge(result):
            raise UnittestError("the test runner returned no result")
        # If a class or a module was skipped, its tests were not started.
        if result.testsRun < len(tests) and all(
            issubclass(type(test), self.unittest.TestCase) for test, _ in result.skipped
        ):
            raise AssertionError(f"{result.testsRun} of {len(tests)} tests ran")
        lacking = self.cases.required - ran
        if lacking and id(sys._getframe(1).f_code) in self.codes and (lacking := self._due(lacking)):
            raise AssertionError(f"{', '.join(sorted(name for _, name in lacking))} did not run")
        return types.SimpleNamespace(result=result)

    def _due(self, lacking: set[tuple[int, str]]) -> set[tuple[int, str]]:
        """Return the methods that are already defined, given the current line of the tests' module."""
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
        # Use the real classes, because `isinstance` trusts what an object claims about itself.
        classes = [each for _, each in named if issubclass(type(each), type) and issubclass(each, unittest.TestCase)]
        # An abstract class exists only for others to derive from.
        concrete = [each for each in dict.fromkeys(classes) if not getattr(each, "__abstractmethods__", None)]
        suite = unittest.TestSuite(map(loader.loadTestsFromTestCase, concrete))
        # A `load_tests` defined by the code could select among the tests.
        return self.names["load_tests"](loader, suite, None) if self.cases.loads_tests else suite

    def _runner(self, settings: dict[str, object]) -> Any:
        given, plain = settings.get("testRunner"), self.unittest.TextTestRunner
        if isinstance(given, plain):
            return given
        # Settings that affect how the tests run, but not which.
        chosen = {name: settings[name] for name in ("buffer", "warnings") if name in settings}
        if isinstance(given, type) and issubclass(given, plain):
            with contextlib.suppress(TypeError):
                return given(**chosen)
            return given()
        return plain(**chosen)

    def judge(self, result: Any) -> bool:
        """Evaluate the result of a test run.

        Args:
            result: The return value of the run.

        Returns:
            Whether it is a test result at all: many other functions are called `run`.

        Raises:
            AssertionError: A test failed or did not run.
            MemoryError: The first test that raised ran out of memory.
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
                raise AssertionError(f"{test} was skipped, but not by the tests: {reason}")
        return True

    def _may_be_skipped(self, test: Any) -> bool:
        test = getattr(test, "test_case", test)  # a subtest
        return self.cases.may_be_skipped(self._key(test), [each.__name__ for each in type(test).__mro__])

    def _key(self, test: Any) -> tuple[int, str] | None:
        """Return the first line and name of the test function that a test calls, or None."""
        function = getattr(type(test), getattr(test, "_testMethodName", ""), None)
        for _ in range(_WRAPPERS):
            function = getattr(function, "__wrapped__", function)
        code = getattr(function, "__code__", None)
        return (code.co_firstlineno, code.co_name) if code is not None and id(code) in self.codes else None


def _tests(suite: Any) -> Iterator[Any]:
    """Yield the tests of a suite and of its nested suites."""
    waiting = [suite]
    while waiting:
        each = waiting.pop()
        if hasattr(each, "countTestCases") and hasattr(each, "__iter__"):
            waiting += each
        else:
            yield each


def _state(watched: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
    """Return the identity of every module and name that affects the verdict of a test method.

    Calls no function of this module that uses a global or a builtin; see `unchanged`.
    """
    parts: list[object] = [sys.modules]
    for module, name in watched:
        found = vars(sys.modules.get(module) or object).get(name)
        parts += [sys.modules.get(module), found]
        if isinstance(found, type) and found.__module__.startswith("unittest"):
            parts += [
                value for each, value in vars(found).items() if each not in _SETTINGS and not _is_note(each, value)
            ]
    return tuple(id(part) for part in parts)


def _is_note(name: str, value: object) -> bool:
    """Return whether an attribute is one that a suite sets on classes whose tests it runs, or that `copy` sets.

    Tests copy the calls of a mock whose arguments change later.
    """
    return name in ("tearDown_exceptions", "__slotnames__") or (name == "_classSetupFailed" and value is False)


def unchanged() -> Callable[[], bool]:
    """Record the state of unittest before the program starts.

    Returns:
        A function that returns, after the tests, whether unittest is unchanged.
    """
    modules = [(name, vars(sys.modules[name])) for name in _MODULES if name in sys.modules]
    watched = tuple((module, name) for module, names in modules for name in names if isinstance(names[name], _PARTS))

    # A program can reach this module's globals and everyone's builtins, so the comparison has copies of both.
    own = {**globals(), "__builtins__": dict(vars(builtins))}
    compared: Callable[[tuple[tuple[str, str], ...]], tuple[int, ...]] = types.FunctionType(_state.__code__, own)

    # The values to compare with are argument defaults, which `native` protects from changes.
    def check(
        watched: tuple[tuple[str, str], ...] = watched,
        before: tuple[int, ...] = compared(watched),
        state: Callable[[tuple[tuple[str, str], ...]], tuple[int, ...]] = compared,
    ) -> bool:
        return state(watched) == before

    return check


@contextlib.contextmanager
def _without_programs_files() -> Iterator[None]:
    """Import nothing of the program: what it runs before its witness begins, the witness does not see.

    A module of the program may have the name of one that is not installed.
    """
    path = sys.path
    sys.path = [each for each in path if each != sources.FOLDER]
    try:
        yield
    finally:
        sys.path = path


@_without_programs_files()
def load(tests: str, *, mock: bool) -> tuple[Any, tuple[type, ...]]:
    """Import the modules of the tests' assertions, before the program can replace them.

    Args:
        tests: The source text of the tests.
        mock: Whether they use assertions of a mock.

    Returns:
        The unittest module, and the classes that define the assertion methods.
    """
    unittest = importlib.import_module("unittest")
    kinds: list[type] = [unittest.TestCase]
    # This exception ends a test method as if it had completed, and any code could raise it.
    vars(sys.modules["unittest.case"])["_ShouldStop"] = ()
    if "IsolatedAsyncioTestCase" in tests:
        importlib.import_module("unittest.async_case")
    if mock:
        kinds.append(importlib.import_module("unittest.mock").NonCallableMock)
    if "testing" in tests:
        with contextlib.suppress(ImportError):
            importlib.import_module("numpy.testing")
    return unittest, tuple(kinds)
