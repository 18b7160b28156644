"""unittest inside a program's tests: `unittest.main()` that returns, and whether the program changed the module."""

import sys
from collections.abc import Callable
from typing import Any

_CLASSES = {
    "unittest.case": ("TestCase", "_Outcome", "_AssertRaisesContext", "_BaseTestCaseContext"),
    "unittest.loader": ("TestLoader",),
    "unittest.result": ("TestResult",),
    "unittest.runner": ("TextTestRunner", "TextTestResult"),
    "unittest.suite": ("BaseTestSuite", "TestSuite"),
}


class UnittestError(Exception):
    """A test method of `unittest.main()` raised something that is no failed assertion."""


class Main:
    """What `unittest.main()` becomes: it runs every test method of the tests and returns.

    Attributes:
        names: Of the module that the tests are in.
        methods: How many test methods stand there.
        unittest: The module itself, whatever the program calls so.
    """

    names: dict[str, Any]
    methods: int
    unittest: Any

    def __call__(self) -> None:
        """Runs them.

        Raises:
            AssertionError: A test failed, or did not run.
            UnittestError: A test raised.
        """
        unittest = self.unittest
        loader = unittest.TestLoader()
        classes = [each for each in self.names.values() if type(each) is type and issubclass(each, unittest.TestCase)]
        # Neither the arguments of the command nor a `load_tests` of the code choose among them.
        suite = unittest.TestSuite(map(loader.loadTestsFromTestCase, classes))
        result = unittest.TextTestRunner().run(suite)
        if result.errors:
            last_line = result.errors[0][1].strip().rpartition("\n")[2]
            raise UnittestError(f"{len(result.errors)} of {result.testsRun} tests raised; the first: {last_line}")
        if not result.wasSuccessful():
            raise AssertionError(f"{len(result.failures)} of {result.testsRun} tests failed")
        if result.testsRun - len(result.skipped) < self.methods:
            raise AssertionError(f"{result.testsRun - len(result.skipped)} of {self.methods} tests ran")


def _state() -> tuple[int, ...]:
    """The identity of every part that the verdict of a test method goes through."""
    parts: list[object] = [sys.modules.get("unittest")]
    for module, names in _CLASSES.items():
        found = sys.modules.get(module)
        parts.append(found)
        for name in names:
            kind = getattr(found, name, None)
            parts += [getattr(sys.modules.get("unittest"), name, None), kind, *vars(kind or object).values()]
    return tuple(id(part) for part in parts)


def unchanged() -> Callable[[], bool]:
    """To be called before the program begins; what it returns, after the tests, says whether unittest is the same."""

    # What it compares with is in its defaults: `native` sees to it that these stay.
    def check(before: tuple[int, ...] = _state(), state: Callable[[], tuple[int, ...]] = _state) -> bool:
        return state() == before

    return check
