"""The fork server of a slot: a warm, single-threaded interpreter that forks a child for each execution.

Standard library only. Run as a script:

    python -S -s -P forkserver.py SITE CONTROL MODULE...

SITE is the directory of the `codealign` package (removed from the path before anything is forked). CONTROL is the
descriptor of a packet socket to the supervisor. `native.c` serves from then on. Its messages are packed structures:

    supervisor → server   `JOB`, with five descriptors: stdin, stdout, stderr, payload, channel; `KILL`
    server → supervisor   `EVENT`: WARM; RUNNING, for an execution that does not end at once; ENDED
                          Instead of WARM, a text of another length than an event: why it did not start
"""

from __future__ import annotations

import builtins
import gc
import importlib
import io
import os
import struct
import sys
from typing import Any

JOB = struct.Struct("=q5qq112s")
"""RUN, CPU seconds, memory, processes, threads, disk (bytes), lowest number of the channel's descriptor, and a 16-byte
token for each kind of report."""
EVENT = struct.Struct("=iiiiqq")
"""Event type, process id, wait status, padding, CPU microseconds, peak resident bytes."""
RUN, KILL = ord("r"), struct.pack("=q", ord("k"))
PROFILE = struct.pack("=q", ord("p"))
"""Asks a fork server at practice for its profile; see `practice`."""
REASON_LIMIT = 400
"""Maximum bytes of the reason why a server did not start."""
WARM, RUNNING, ENDED = ord("w"), ord("r"), ord("e")


def _interactive_names() -> None:
    """Define `exit`, `quit` and `help`, which the site module (not loaded here) usually provides."""
    import _sitebuiltins

    names = {name: _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)") for name in ("exit", "quit")}
    vars(builtins).update(names, help=_sitebuiltins._Helper())


def _renew_streams() -> None:
    """Recreate the standard streams over pipes, because programs have pipes.

    A stream remembers properties of the file it was created on. One created over /dev/null would treat a pipe as
    seekable and fail when the program reconfigures it.
    """
    ends = os.pipe()
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        old, before = getattr(sys, name), os.dup(number)
        os.dup2(ends[min(number, 1)], number)
        raw = io.FileIO(number, mode, closefd=False)
        raw.name = f"<{name}>"
        buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        stream: Any = io.TextIOWrapper(
            buffer, old.encoding, old.errors, newline="\n", line_buffering=old.line_buffering
        )
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        os.dup2(before, number)
        os.close(before)
    for end in ends:
        os.close(end)


def _import(modules: list[str]) -> list[dict[str, Any]]:
    """Import modules, and return the at-fork hooks that they registered instead of installing them.

    In an execution's process the hooks are unnecessary (there was no other thread and no lock was held), and running
    them writes to 170 pages.
    """
    hooks: list[dict[str, Any]] = []
    original = os.register_at_fork
    os.register_at_fork = lambda **hook: hooks.append(hook)
    for name in modules:
        importlib.import_module(name)
    os.register_at_fork = original
    return hooks


def _start(arguments: list[str]) -> tuple[Any, ...]:
    """Do all one-time initialisation and return the arguments for `serve`."""
    site, control, *modules = arguments
    sys.path.insert(0, site)
    from codealign.runner import harness, seccomp, sources

    native: Any = importlib.import_module("codealign.runner._native")

    native.stand_in()
    _renew_streams()
    hooks = _import(modules)
    _interactive_names()
    made = harness.Harness(native, hooks)
    program = seccomp.filter_program()
    # A program must not be able to import the runner, or see how it was started.
    sys.path.remove(site)
    for name in [name for name in sys.modules if name.partition(".")[0] == "codealign"]:
        del sys.modules[name]
    sys.argv[:] = [sources.PATH]
    # At the end of the path, so that a program's modules do not shadow others.
    sys.path.append(sources.FOLDER)
    gc.collect()
    # Entries of this cache depend on addresses, and replacing one writes to the name that it held.
    sys._clear_type_cache()
    # Freeze the objects so that the collector does not touch, and therefore copy, their pages in every child.
    gc.freeze()
    functions = (made.prepare, made.describe, made.finish, made.main)
    # Extension modules are loaded from here. A program that brings its own has its own machine code.
    extensions = next((path for path in sys.path if path.endswith("lib-dynload")), "/nowhere")
    return native.serve, (int(control), program, *functions, extensions)


def _reason(error: Exception) -> bytes:
    """Return an error as one line. Messages about packages that cannot be imported have many."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.encode("utf-8", "replace")[:REASON_LIMIT].ljust(EVENT.size + 1)


if __name__ == "__main__":
    try:
        _serve, _arguments = _start(sys.argv[1:])
    except Exception as error:
        # Before the supervisor learns of it and ends the runner: its own last lines are what the gateway quotes.
        sys.excepthook(type(error), error, error.__traceback__)
        os.write(int(sys.argv[2]), _reason(error))
        sys.exit(1)
    _serve(*_arguments)
