"""Finds out which memory of a fork server executions write to, for `heap.c`.

    python -S -s -P -m codealign.runner.practice [FOLDER]

Starts each fork server in the same way as a slot does, but with the practice variants of the native parts
(`build.py`), and runs the programs in `typical` on it. Writes a profile per fork server into FOLDER, or prints a line
with its name and its profile in base 64.

Profiles are only good where the interpreter allocates in the same order, so this must run where runners will: with the
same paths, packages and interpreter.
"""

from __future__ import annotations

import base64
import marshal
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from codealign.runner import forkserver, sources
from codealign.runner.configuration import use_program_environment
from codealign.runner.evidence import Tokens
from codealign.runner.profiles import DEFAULT, MIB, Profile
from codealign.runner.slot import Server
from codealign.runner.supervisor import installed_packages

PROGRAMS = Path(__file__).with_name("typical")
_TESTS = "\n# ---- tests ----\n\n"
_LIMITS = (60, 1024 * MIB, 64, 128, 64 * MIB)
_PROFILE_LIMIT = 1 << 16
_ANSWER_SECONDS = 120.0

Program = tuple[str, str]
"""Code and tests."""


def typical_programs() -> Iterator[tuple[str, Program]]:
    """Yield the names and contents of the programs that stand for those to come."""
    for path in sorted(PROGRAMS.glob("*.txt")):
        code, _, tests = path.read_text(encoding="utf-8").partition(_TESTS)
        yield path.stem, (code, tests)


def programs_of(server: str, profile: Profile) -> list[Program]:
    """Return the programs that a fork server practises.

    Args:
        server: Its name, as in `Profile.servers`.
        profile: Determines which programs it serves. The more modules it has, the more programs it can serve.
    """
    names = list(profile.servers)
    found = [program for _, program in typical_programs()]
    return [each for each in found if names.index(profile.server_of(*each)) <= names.index(server)]


def _execute(server: Server, program: Program) -> None:
    """Run a program to its end.

    Raises:
        RuntimeError: It did not start.
        SlotLost: The fork server ended.
    """
    code, tests = program
    request = {"code": code, "tests": tests, "files": {}, "path": sources.PATH, "is_file": False}
    payload, feed = os.pipe()
    channel, reports = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    null = os.open(os.devnull, os.O_RDWR)
    with channel, open(feed, "wb") as stream:
        with reports:
            server.start(_LIMITS, Tokens(), (null, null, null, payload, reports.fileno()))
        os.close(null)
        os.close(payload)
        stream.write(marshal.dumps(request))
        stream.close()
        while isinstance(server.event(), int):
            pass
        if not channel.recv(_PROFILE_LIMIT):
            raise RuntimeError(f"a program for practice did not start:\n{code}")


def practise(name: str, profile: Profile, programs: Sequence[Program]) -> bytes:
    """Return the profile of a fork server: 8 bytes for each block that a program wrote to.

    Args:
        name: Its name, as in `Profile.servers`.
        profile: Determines what it imports.
        programs: What it runs.

    Raises:
        RuntimeError: A program did not start.
        SlotLost: The fork server did not start, or ended.
    """
    server = Server(name, profile.servers[name], None, practises=True)
    server.wait_ready()
    server.control.settimeout(_ANSWER_SECONDS)
    for program in programs:
        _execute(server, program)
    server.control.send(forkserver.PROFILE)
    found = server.control.recv(_PROFILE_LIMIT)
    server.control.close()
    server.process.wait()
    return found


def main(folders: Sequence[str]) -> None:
    """Practise with every fork server; see above."""
    use_program_environment()
    profile = DEFAULT.with_packages(installed_packages(DEFAULT))
    for name in profile.servers:
        found = practise(name, profile, programs_of(name, profile))
        for folder in folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, name).write_bytes(found)
        if not folders:
            print(name, base64.b64encode(found).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
