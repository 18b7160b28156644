"""Harness around one program, in the process forked for it: reads it, compiles it, and reports how it ended.

Standard library only. The code runs first, then the tests in the same module. With tests, `__name__` is "solution"
in the code (its main guards do not run, as if the tests imported it) and "__main__" in the tests (theirs do).
Without tests the code is the program and its `__name__` is "__main__". `native` runs both, so no frame of this
file is below the program's.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import errno
import functools
import gc
import importlib.machinery
import io
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
"""With less free space than this, the disk counts as full."""
_LARGEST_STATUS = 1 << 63
_PART_BYTES = 1 << 16
_DESTRUCTORS = ("__del__", "yield")
"""A program that contains none of these runs no code of its own when its objects are destroyed."""
_FILE: Any = io.IOBase.__base__
"""What every file derives from. `IOBase` itself is an abstract class, which takes three times as long to ask."""
_FILES = ("open(", "IOWrapper(", "BufferedWriter(", "FileIO(")
"""A program that contains none of these leaves no file open."""

Prepared = tuple[types.CodeType, types.CodeType | None, dict[str, Any], int, Callable[[], bool] | None]
"""Code, tests, the globals of the module that both run in, the number of assertions, and a check to run afterwards."""
_Compiled = tuple[types.CodeType, instrument.CompiledTests | None]


def _line_of(trace: types.TracebackType | None, path: str) -> tuple[str, int]:
    """Return the source ("code" or "tests") and line of the innermost frame that belongs to the program at `path`."""
    names = {path: "code", instrument.TESTS_FILE: "tests"}
    found = ("", 0)
    for frame, line in traceback.walk_tb(trace):
        name = names.get(frame.f_code.co_filename)
        if name is not None:
            found = (name, line)
    return found


def _class_of(kind: type, error: BaseException) -> str:
    """Return the limit that an exception indicates, if any. Only the witness knows whether a process was requested.

    Uses the real class, because `isinstance` trusts what an object claims about itself.
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
    """Return whether the disk is really full; a write to /dev/full fails with the same error."""
    disk = os.statvfs("/box")
    return disk.f_bavail * disk.f_frsize < _FULL_BYTES or (disk.f_files > 0 and disk.f_ffree == 0)


def _message_of(error: BaseException) -> str:
    try:
        message = str(error)
    except BaseException:
        return "(its message could not be created)"
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
        # Like the interpreter: a status that does not fit becomes -1.
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
    """Create a fresh module for the program, registered under `name` and as `__main__`, and return its globals."""
    own = types.ModuleType("builtins")
    own.__dict__.update(builtins.__dict__)
    # A program that changes its builtins must not affect the harness and the library.
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
    sys.modules["__main__"] = sys.modules[name] = module
    return names


def _flush(name: str) -> None:
    """Flush a standard stream, unless the program has closed it or has put nothing in its place."""
    stream = getattr(sys, name, None)
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()


def _remember_source(file: str, source: str) -> None:
    """Register the source so that tracebacks and `inspect.getsource` find the lines."""
    found = sources.lines(source)
    if found and not found[-1].endswith("\n"):
        found[-1] += "\n"
    linecache.cache[file] = (len(source), None, found, file)


def _write_source(path: str, source: str) -> None:
    """Write the program's source. If the disk is too small for it, the program will notice."""
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(source)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)


class Harness:
    """Prepared once in the fork server; each child uses its copy once.

    Args:
        native: The module of `native.c`.
        hooks: At-fork hooks that modules registered. They did not run when this child was forked; they run in the
            program's own forks.
    """

    def __init__(self, native: Any, hooks: list[dict[str, Any]]) -> None:
        self._native = native
        self._hooks = hooks
        self._path = sources.PATH
        self._server = sys.modules["__main__"]
        """Kept: to destroy the fork server's module would write to objects beside it."""
        self.main = unittests.Main()
        """Called by `native.main`."""
        self._has_destructors = False
        """Whether a program without tests may leave objects whose destruction runs its code."""
        self._left: list[Any] = []
        """Objects whose destructors have run. Kept, so that they do not run again."""
        self._has_files = False
        """Whether a program without tests may leave files open, with output in their buffers."""
        self._streams = (sys.stdout, sys.stderr)
        """The interpreter's own, whatever the program puts in their place."""

    def prepare(self, payload: int) -> Prepared | None:
        """Read and compile a program.

        Args:
            payload: A descriptor to read: a marshalled dict of `code`, `tests`, `files`, the `path` of the code, and
                whether it is a file. Closed here.

        Returns:
            What to run, or None if nothing will run (a report gives the reason).
        """
        for hook in self._hooks:
            os.register_at_fork(**hook)
        # The fork server's numbers would be the same in every execution.
        for name in ("random", "numpy.random"):
            if name in sys.modules:
                sys.modules[name].seed()
        request = marshal.loads(_whole(payload))
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
        """Describe the exception that ended the program, and print its traceback as the interpreter would.

        Returns:
            The exit status, the line, and the report's text: class, type, source and message separated by null bytes.
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
        # The program also controls the metaclass, so read the name without using it.
        name = type.__dict__["__name__"].__get__(kind)
        return (
            status,
            line,
            "\0".join((limit, name, source, _message_of(error))).encode("utf-8", "replace")[:_TEXT_LIMIT],
        )

    def finish(self) -> None:
        """Do what the interpreter does at exit: wait for threads, run exit handlers and destructors, and flush."""
        threading = sys.modules.get("threading")
        # The interpreter calls the same function at exit. It has no public name.
        join_threads = vars(threading).get("_shutdown") if threading else None
        stdout, stderr = (functools.partial(_flush, name) for name in ("stdout", "stderr"))
        for step in (join_threads, atexit._run_exitfuncs, stdout, self._destroy, self._flush_files, stdout, stderr):
            try:
                if step is not None:
                    step()
            except BaseException as error:
                _print_traceback(type(error), error, error.__traceback__)
        for stream in self._streams:
            # Closed or detached ones raise.
            with contextlib.suppress(BaseException):
                stream.flush()

    def _flush_files(self) -> None:
        """Write what is in the buffers of the program's files: one of them may be over standard output."""
        # Without the objects of the fork server, which are frozen.
        for each in gc.get_objects() if self._has_files else ():
            if issubclass(type(each), _FILE):
                with contextlib.suppress(BaseException):
                    each.flush()

    def _destroy(self) -> None:
        """Run the destructors of the objects that are left, generators included, in the collector's order.

        At its end the interpreter does so before it clears any global: destructors may use all of them.
        """
        if not self._has_destructors:
            return
        # The interpreter has put its own streams back by then.
        sys.stdout, sys.stderr = self._streams
        gc.collect()
        self._left = [
            each
            for each in gc.get_objects()
            if hasattr(type(each), "__del__") and not issubclass(type(each), _FILE) and not gc.is_finalized(each)
        ]
        for each in self._left:
            with contextlib.suppress(BaseException):
                type(each).__del__(each)

    def _ready(self, code: types.CodeType, tests: instrument.CompiledTests | None, request: Any) -> Prepared:
        names = _module("__main__" if tests is None else "solution", self._path)
        _remember_source(self._path, request["code"])
        if tests is None:
            self._has_destructors = any(name in request["code"] for name in _DESTRUCTORS)
            self._has_files = any(name in request["code"] for name in _FILES)
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
        # For tests that call it under a name that cannot be resolved from their text.
        self.main.unittest.main = self._native.main
        self._native.expect(kinds, missing)
        return code, tests.code, names, tests.total, unittests.unchanged()

    def _compiled(self, code: str, tests: str) -> _Compiled | None:
        """Compile both parts. Return None if nothing will run (a report gives the reason)."""
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


def _whole(descriptor: int) -> bytes:
    """Read a pipe to its end and close it. A file object would make three more system calls."""
    parts = []
    while part := os.read(descriptor, _PART_BYTES):
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts)


def _write_files(files: dict[str, bytes]) -> None:
    for path, content in files.items():
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
