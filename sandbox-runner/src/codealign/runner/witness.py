"""Reports from inside a program's own process that the program cannot easily forge.

Standard library only. The harness and the instrumented assertions raise audit events under a random name; a hook
turns them into messages on a packet socket, each with a keyed digest. What stands between a program and the key:

- The hook is in the interpreter's list of audit hooks, which Python code cannot read, and it and what it closes
  over are not tracked by the garbage collector, so that `gc` lists none of it.
- No frame below the program holds the key or the hook.
- No other audit hook can be added, which would be called from inside this one.
- The hook looks at who raised the event: an assertion counts from the tests' own code objects alone (by identity),
  an end from the very frame that began.
- A captured message is worth nothing: its digest is for that message.

What remains possible for a program that is written against this harness: reading or writing its own process's
memory (ctypes, /proc/self/mem), and catching the hook's frame from a signal handler or another thread.
"""

import _blake2
import ctypes
import os
import struct
import sys
import types
from collections.abc import Iterable
from typing import Any

from codealign.runner.instrument import Kind

HEADER = struct.Struct("<BIII")
"""Kind, running number, assertions executed, line; a text follows, then the digest."""
DIGEST_SIZE = 16
_STARTERS = frozenset(("os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen"))
_TRACERS = frozenset(("sys.settrace", "sys.setprofile"))
STARTED, TRACED = 1, 2
"""Bits of the flags byte that a report's text begins with: it tried to start a process; it traced."""


def send_plain(channel: int, key: bytes, kind: Kind, line: int, text: bytes) -> None:
    """A report from before any of the program ran."""
    message = HEADER.pack(kind, 1, 0, line) + b"\0" + text
    os.write(channel, message + digest(message, key))


def digest(message: bytes, key: bytes) -> bytes:
    """The proof that a message comes from whoever has the key."""
    return _blake2.blake2b(message, key=key, digest_size=DIGEST_SIZE).digest()


def _hide(*objects: object) -> None:
    untrack, keep = ctypes.pythonapi.PyObject_GC_UnTrack, ctypes.pythonapi.Py_IncRef
    for item in objects:
        # Freeing an untracked object would corrupt the collector's lists: these live as long as the process.
        keep(ctypes.py_object(item))
        untrack(ctypes.py_object(item))


def install(channel: int, key: bytes, event: str, tests: Iterable[types.CodeType], harness: types.CodeType) -> None:
    """Starts to witness. Everything that compiles and prepares must be done before.

    Args:
        channel: The descriptor of the packet socket.
        key: Shared with the supervisor alone.
        event: The name of the audit events that carry reports.
        tests: The code objects whose assertions count.
        harness: The code object whose frame reports begin and end.
    """
    counted = {id(code): code for code in tests}
    write, pack, frame_at, identity, blake2b = os.write, HEADER.pack, sys._getframe, id, _blake2.blake2b
    own, process = os.getpid(), os.getpid
    starters, tracers = _STARTERS, _TRACERS
    number = executed = flags = 0
    failed = False
    began: types.FrameType | None = None

    def send(kind: int, line: int, text: bytes) -> None:
        nonlocal number
        number += 1
        message = pack(kind, number, executed, line) + bytes((flags,)) + text
        write(channel, message + blake2b(message, key=key, digest_size=16).digest())

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal executed, failed, flags, began
        if name != event:
            if name in starters:
                flags |= 1
            elif name in tracers:
                flags |= 2
            elif name == "sys.addaudithook":
                # A second hook would be called from within this one, and see its frame. This refuses it silently.
                raise RuntimeError("one audit hook is enough")
            return
        kind = arguments[0]
        if type(kind) is not int:
            return  # Comparing it would call the program's code from here.
        frame = frame_at(1)
        if kind <= 2 and kind != 0:
            if identity(frame.f_code) not in counted:
                return
            executed += 1
            if kind == 2 and not failed:
                failed = True
                send(2, frame.f_lineno, b"")
        elif kind == 0 and began is None and frame.f_code is harness:
            began = frame
            send(0, arguments[2], b"")
        elif frame is began and process() == own:
            send(kind, arguments[2], arguments[1])

    closures = [function.__closure__ or () for function in (hook, send)]
    sys.addaudithook(hook)
    _hide(hook, send, counted, *closures, *(cell for closure in closures for cell in closure))


assert (Kind.BEGAN, Kind.PASSED, Kind.FAILED) == (0, 1, 2)  # The hook spells them out, to look nothing up.
