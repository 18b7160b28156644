"""Around one program, in the process that was forked for it: reads it, compiles it, says what ended it.

Standard library only. The code runs, then the tests in the same module. With tests, the code's `__name__` is
"solution" (it is imported by its tests: main guards do not run) and the tests' is "__main__" (theirs do); without
tests the code is the program and its `__name__` is "__main__". `native` runs both: no frame of this file is below
the program's.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import errno
import gc
import importlib.machinery
import linecache
import marshal
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from codealign.runner import instrument, sources, unittests
from codealign.runner.reports import Kind

_TEXT_LIMIT = 2000
_TRACEBACK_FRAMES = 200
_FULL_BYTES = 64 * 1024
"""Less room than this is none."""
_LARGEST_STATUS = 1 << 63
_KEPT = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
"""What destructors may need to the end."""

Prepared = tuple[types.CodeType, types.CodeType | None, dict[str, Any], int, Callable[[], bool] | None]
"""Code, tests, the names of the module that both run in, assertions in the tests, and a check after them."""
_Compiled = tuple[types.CodeType, instrument.CompiledTests | None]


def _line_of(trace: types.TracebackType | None, path: str) -> tuple[str, int]:
    """The innermost place in the program itself, whose code is in the file `path`: its source and line."""
    names = {path: "code", instrument.TESTS_FILE: "tests"}
    found = ("", 0)
    for frame, line in traceback.walk_tb(trace):
        name = names.get(frame.f_code.co_filename)
        if name is not None:
            found = (name, line)
    return found


def _class_of(kind: type, error: BaseException) -> str:
    """Which limit an exception tells of, if any. That a process was asked for is the witness's knowledge.

    By the real class: `isinstance` believes what an object says of itself.
    """
    if issubclass(kind, SystemExit):
        return "exit"
    if issubclass(kind, MemoryError):
        return "memory"
    if issubclass(kind, AssertionError):
        return "assertion"
    if issubclass(kind, OSError):
        number = getattr(error, "errno", 0)
        if number in (errno.EDQUOT, errno.EFBIG) or (number == errno.ENOSPC and _disk_is_full()):
            return "disk"
        return "process" if number == errno.EAGAIN else "other"
    if issubclass(kind, RuntimeError) and error.args == ("can't start new thread",):
        return "thread"
    return "other"


def _disk_is_full() -> bool:
    """/dev/full says so too."""
    disk = os.statvfs("/box")
    return disk.f_bavail * disk.f_frsize < _FULL_BYTES or (disk.f_files > 0 and disk.f_ffree == 0)


def _message_of(error: BaseException) -> str:
    try:
        message = str(error)
    except BaseException:
        return "(its message could not be made)"
    return message if type(message) is str else ""


def _print_traceback(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    with contextlib.suppress(BaseException):
        traceback.print_exception(kind, error, trace, limit=-_TRACEBACK_FRAMES, file=sys.stderr)


def _exit_status(error: BaseException) -> int:
    code = getattr(error, "code", None)
    if code is None:
        return 0
    if issubclass(type(code), int):
        number = int.__index__(code)
        # As the interpreter: what does not fit is -1.
        return (number if -_LARGEST_STATUS <= number < _LARGEST_STATUS else -1) & 0xFF
    with contextlib.suppress(BaseException):
        print(code, file=sys.stderr)
    return 1


def _describe_compile_error(error: BaseException, source: str) -> tuple[int, bytes]:
    line = error.lineno if isinstance(error, SyntaxError) and isinstance(error.lineno, int) else 0
    message = error.msg if isinstance(error, SyntaxError) else _message_of(error)
    fields = ("syntax", type(error).__name__, source, str(message))
    return max(line, 0), "\0".join(fields).encode("utf-8", "replace")[:_TEXT_LIMIT]


def _module(name: str, path: str) -> dict[str, Any]:
    """A fresh module for the program, known by its name and as the main one: a script, or a module of that file."""
    own = types.ModuleType("builtins")
    own.__dict__.update(builtins.__dict__)
    # What the program does to its builtins it does not do to the harness and the library.
    sys.modules["builtins"] = own
    module = types.ModuleType(name)
    names = module.__dict__
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = None
    if name != "__main__":
        spec = importlib.machinery.ModuleSpec(name, loader, origin=path)
        spec.has_location = True
    package = None if spec is None else ""
    names.update(__builtins__=own, __file__=path, __loader__=loader, __spec__=spec, __package__=package)
    # The frame that serves is below the program's: nothing is to be found in its names.
    sys.modules["__main__"].__dict__.clear()
    sys.modules["__main__"] = sys.modules[name] = module
    return names


def _remember_source(file: str, source: str) -> None:
    """So that tracebacks and `inspect.getsource` have the lines."""
    found = sources.lines(source)
    if found and not found[-1].endswith("\n"):
        found[-1] += "\n"
    linecache.cache[file] = (len(source), None, found, file)


def _write_source(path: str, source: str) -> None:
    """A disk without room for it is the program's to notice."""
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(source)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)


class Harness:
    """What the fork server prepares once; a child's copy is used once."""

    def __init__(self, native: Any, hooks: list[dict[str, Any]]) -> None:
        """Keeps what it is given.

        Args:
            native: The module of `native.c`.
            hooks: What modules asked for at a fork. The fork of this child ran none of it; the program's own do.
        """
        self._native = native
        self._hooks = hooks
        self._path = sources.PATH
        self.main = unittests.Main()
        """What `native.main` calls."""
        self._globals: dict[str, Any] = {}
        """Of a program whose objects have destructors."""

    def prepare(self, payload: int) -> Prepared | None:
        """Reads and compiles a program.

        Args:
            payload: A descriptor to read: a marshalled dict of `code`, `tests`, `files`, the `path` of the code, and
                whether it is a file. Closed here.

        Returns:
            What to run, or None when a report says why nothing will.
        """
        for hook in self._hooks:
            os.register_at_fork(**hook)
        random = sys.modules.get("random")
        if random is not None:
            random.seed()
        with open(payload, "rb") as stream:
            request = marshal.load(stream)
        if request["path"] != self._path:
            self._path = sys.argv[0] = request["path"]
        _write_files(request["files"])
        if request["is_file"]:
            _write_source(self._path, request["code"])
        compiled = self._compiled(request["code"], request["tests"])
        return None if compiled is None else self._ready(*compiled, request)

    def describe(
        self, kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
    ) -> tuple[int, int, bytes]:
        """What ended the program, and says so on its standard error as the interpreter would.

        Returns:
            The exit status, the line, and the report's text: class, type, source and message, null bytes between them.
        """
        with contextlib.suppress(BaseException):
            sys.setrecursionlimit(1000)
        source, line = _line_of(trace, self._path)
        limit = _class_of(kind, error)
        status = 1
        if limit == "exit":
            status = _exit_status(error)
        else:
            _print_traceback(kind, error, trace)
        # The metaclass is the program's too: the name is read past it.
        name = type.__dict__["__name__"].__get__(kind)
        return (
            status,
            line,
            "\0".join((limit, name, source, _message_of(error))).encode("utf-8", "replace")[:_TEXT_LIMIT],
        )

    def finish(self) -> None:
        """What the interpreter does at its end: wait for threads, run exit handlers and destructors, flush."""
        threading = sys.modules.get("threading")
        # As the interpreter's own end does; this one has no public name.
        join_threads = vars(threading).get("_shutdown") if threading else None
        for step in (join_threads, atexit._run_exitfuncs, self._destroy, sys.stdout.flush, sys.stderr.flush):
            try:
                if step is not None:
                    step()
            except BaseException as error:
                _print_traceback(type(error), error, error.__traceback__)

    def _destroy(self) -> None:
        """Lets go of the program's objects in their order, and then of those that hold each other."""
        if not self._globals:
            return
        for name in list(self._globals):
            if name[:2] != "__" and not issubclass(type(self._globals.get(name)), _KEPT):
                self._globals[name] = None
        gc.collect()

    def _ready(self, code: types.CodeType, tests: instrument.CompiledTests | None, request: Any) -> Prepared:
        names = _module("__main__" if tests is None else "solution", self._path)
        _remember_source(self._path, request["code"])
        if tests is None:
            self._globals = names if "__del__" in request["code"] else {}
            return code, None, names, 0, None
        _remember_source(instrument.TESTS_FILE, request["tests"])
        for each, offset in instrument.sites(tests.code):
            self._native.watch(each, offset)
        missing = tests.missing.encode("utf-8", "replace")
        if tests.cases is None:
            self._native.expect((), missing)
            return code, tests.code, names, tests.total, None
        self.main.names, self.main.cases = names, tests.cases
        self.main.codes = frozenset(map(id, instrument.nested(tests.code)))
        self.main.unittest, kinds = unittests.load(request["tests"], mock=tests.uses_mock)
        # For tests that have it under a name that is not to be told from their text.
        self.main.unittest.main = self._native.main
        self._native.expect(kinds, missing)
        return code, tests.code, names, tests.total, unittests.unchanged()

    def _compiled(self, code: str, tests: str) -> _Compiled | None:
        """Both parts compiled, or None when a report says why nothing will run."""
        source = "code"
        try:
            compiled = instrument.compile_code(sources.without_mark(code), self._path)
            if not tests:
                return compiled, None
            source = "tests"
            tests = sources.without_mark(tests)
            witnesses = {name: getattr(self._native, name) for name in instrument.WITNESSES}
            uses_unittest = "unittest" in tests or "unittest" in code
            watched = instrument.CompiledTests(tests, os.urandom(16).hex(), witnesses, unittest=uses_unittest)
        except BaseException as error:
            line, text = _describe_compile_error(error, source)
            self._native.report(Kind.UNCOMPILED, line, text)
            return None
        if watched.total == 0:
            self._native.report(Kind.UNASSERTED, 0, watched.missing.encode("utf-8", "replace"))
            return None
        return compiled, watched


def _write_files(files: dict[str, bytes]) -> None:
    for path, content in files.items():
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
