"""Runs one program in the process that it was forked into: compile, run, say what became of it.

Standard library only. The code runs, then the tests in the same module. With tests, the code's `__name__` is
"solution" (it is imported by its tests: main guards do not run) and the tests' is "__main__" (theirs do); without
tests the code is the program and its `__name__` is "__main__".
"""

import atexit
import builtins
import contextlib
import errno
import linecache
import marshal
import os
import resource
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any

from codealign.runner import instrument, witness
from codealign.runner.instrument import Kind

_TEXT_LIMIT = 2000
_TRACEBACK_FRAMES = 200


def _line_of(error: BaseException) -> tuple[str, int]:
    """The innermost place in the program itself: its source and line."""
    found = ("", 0)
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        if name in (instrument.CODE_FILE, instrument.TESTS_FILE):
            found = (name.strip("<>"), line)
    return found


def _class_of(error: BaseException) -> str:
    """Which limit an exception tells of, if any. That a process was asked for is the witness's knowledge."""
    if isinstance(error, SystemExit):
        return "exit"
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, AssertionError):
        return "assertion"
    if isinstance(error, OSError):
        number = error.errno
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return "disk"
        return "process" if number == errno.EAGAIN else "other"
    if isinstance(error, RuntimeError) and error.args == ("can't start new thread",):
        return "thread"
    return "other"


def _message_of(error: BaseException) -> str:
    try:
        message = str(error)
    except BaseException:
        return "(its message could not be made)"
    return message if type(message) is str else ""


def _describe(error: BaseException) -> tuple[bytes, int]:
    """What a report of an exception says: class, type, source and message, and the line."""
    try:
        source, line = _line_of(error)
        # The metaclass is the program's too: the name is read past it.
        kind = type.__dict__["__name__"].__get__(type(error))
        fields = (_class_of(error), kind, source, _message_of(error))
        return "\0".join(fields).encode("utf-8", "replace")[:_TEXT_LIMIT], line
    except BaseException:
        return b"other\0Exception\0\0(it could not be described)", 0


def _describe_compile_error(error: BaseException, source: str) -> tuple[bytes, int]:
    line = error.lineno if isinstance(error, SyntaxError) and isinstance(error.lineno, int) else 0
    message = error.msg if isinstance(error, SyntaxError) else _message_of(error)
    fields = ("syntax", type(error).__name__, source, str(message))
    return "\0".join(fields).encode("utf-8", "replace")[:_TEXT_LIMIT], max(line, 0)


def _print_traceback(error: BaseException) -> None:
    """As the interpreter would, without the harness's own frames."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace, limit=-_TRACEBACK_FRAMES, file=sys.stderr)
    except BaseException:
        return


def _exit_code(error: SystemExit) -> int:
    code = error.code
    if code is None:
        return 0
    if type(code) is int:
        return code & 0xFF
    with contextlib.suppress(BaseException):
        print(code, file=sys.stderr)
    return 1


def _make_room() -> None:
    """So that a report of MemoryError or RecursionError does not itself fail."""
    try:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        sys.setrecursionlimit(1000)
    except BaseException:
        return


def _finish() -> None:
    """What the interpreter does at its end: wait for threads, run exit handlers, flush."""
    # As the interpreter's own end does; this one has no public name.
    join_threads: Callable[[], None] = vars(threading)["_shutdown"]
    flushes: list[Callable[[], None]] = [lambda: sys.stdout.flush(), lambda: sys.stderr.flush()]
    for step in (join_threads, atexit._run_exitfuncs, *flushes):
        try:
            step()
        except BaseException as error:
            _print_traceback(error)


def _run(event: str, total: int, code: types.CodeType, tests: types.CodeType | None, names: dict[str, Any]) -> int:
    """Runs the program. The witness knows this function's frame and takes the end from it alone.

    Returns:
        The exit code that the process should end with.
    """
    audit, execute = sys.audit, exec
    audit(event, 0, b"", total)
    try:
        execute(code, names)
        if tests is not None:
            names["__name__"] = "__main__"
            execute(tests, names)
        audit(event, 3, b"", 0)
        return 0
    except BaseException as error:
        _make_room()
        audit(event, 4, *_describe(error))
        if isinstance(error, SystemExit):
            return _exit_code(error)
        _print_traceback(error)
        return 1


def _module(name: str) -> dict[str, Any]:
    """A fresh module for the program, known by its name and as the main one."""
    module = types.ModuleType(name)
    names = module.__dict__
    names["__builtins__"] = builtins
    sys.modules["__main__"] = sys.modules[name] = module
    return names


def _remember_source(file: str, source: str) -> None:
    """So that tracebacks and `inspect.getsource` have the lines."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)


def _compiled(
    channel: int, key: bytes, event: str, code: str, tests: str
) -> tuple[types.CodeType, types.CodeType | None, int] | None:
    """Both parts compiled, or None when a report says why nothing will run."""
    source = "code"
    try:
        code_object = instrument.compile_code(code)
        if not tests:
            return code_object, None, 0
        source = "tests"
        tests_object, total = instrument.compile_tests(tests, event)
    except BaseException as error:
        text, line = _describe_compile_error(error, source)
        witness.send_plain(channel, key, Kind.UNCOMPILED, line, text)
        return None
    if total == 0:
        witness.send_plain(channel, key, Kind.UNASSERTED, 0, b"")
        return None
    return code_object, tests_object, total


def _prepare(channel: int, request: dict[str, Any]) -> tuple[Any, ...] | None:
    """Compiles and installs the witness. When this has returned, no frame holds the key."""
    key: bytes = request["key"]
    code, tests = request["code"], request["tests"]
    event = "codealign." + os.urandom(12).hex()
    compiled = _compiled(channel, key, event, code, tests)
    if compiled is None:
        return None
    code_object, tests_object, total = compiled
    _remember_source(instrument.CODE_FILE, code)
    if tests_object is not None:
        _remember_source(instrument.TESTS_FILE, tests)
    assertions = list(instrument.nested(tests_object)) if tests_object is not None else []
    witness.install(channel, key, event, assertions, _run.__code__)
    return event, total, code_object, tests_object, _module("solution" if tests else "__main__")


def _write_files(files: dict[str, bytes]) -> None:
    for path, content in files.items():
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def _read_request(payload: int) -> dict[str, Any]:
    with open(payload, "rb") as stream:
        request = marshal.load(stream)
    assert isinstance(request, dict)
    return request


def main(payload: int, channel: int) -> int:
    """Runs the program that `payload` holds and reports on `channel`.

    Args:
        payload: A descriptor to read: a marshalled dict of `key`, `code`, `tests` and `files`. Closed here.
        channel: The packet socket of the witness.

    Returns:
        The exit code for the process.
    """
    request = _read_request(payload)
    _write_files(request.pop("files"))
    prepared = _prepare(channel, request)
    request.clear()
    if prepared is None:
        return 1
    status = _run(*prepared)
    _finish()
    return status
