"""Validates requests and fills in their defaults."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.errors import InvalidArgument
from codealign.runner.profiles import DEFAULT, MIB, PROFILES, Profile

CODE_LIMIT = 1024 * 1024
STDIN_LIMIT = 16 * 1024 * 1024
FILES_LIMIT = 256
_FOLDERS_LIMIT = 8192
"""A program's disk has 16,384 entries; see `native.c`. The rest is for the program."""
RUNS_LIMIT = 10
_REQUEST_ID_LIMIT = 256
_NAME_LIMIT = 255
"""NAME_MAX of Linux, in bytes."""
_PAGE = 4096
"""The disk space of a file is a multiple of this."""
_SMALLEST = {"memory_bytes": 16 * MIB, "disk_bytes": 64 * 1024}
"""With less than this not even an empty program runs."""

Violation = tuple[str, str]


def _path_fault(path: str) -> str:
    if not path or len(path.encode()) > 1024 or "\0" in path:
        return "must be 1 to 1024 bytes without a null byte"
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        return 'must be relative, without ".", ".." or empty parts'
    if any(len(part.encode()) > _NAME_LIMIT for part in path.split("/")):
        return f"each part has at most {_NAME_LIMIT} bytes"
    return ""


def _of_files(program: pb.Program, disk_bytes: int) -> Iterator[Violation]:
    if len(program.files) > FILES_LIMIT:
        yield "program.files", f"at most {FILES_LIMIT} files, got {len(program.files)}"
        return
    seen: set[str] = set()
    for index, file in enumerate(program.files):
        fault = _path_fault(file.path)
        if fault:
            yield f"program.files[{index}].path", fault
        elif file.path in seen:
            yield f"program.files[{index}].path", f"duplicate path {file.path!r}"
        seen.add(file.path)
    folders = {"/".join(parts[:end]) for path in seen if (parts := path.split("/")) for end in range(1, len(parts))}
    if len(folders) > _FOLDERS_LIMIT:
        yield "program.files", f"at most {_FOLDERS_LIMIT} directories, got {len(folders)}: use shorter paths"
    for path in sorted(folders & seen):
        yield "program.files", f"{path!r} is both a file and the directory of other files"
    size = sum(-(-len(file.content) // _PAGE) * _PAGE for file in program.files)
    if disk_bytes and size > disk_bytes:
        yield "program.files", f"{size} bytes exceed the disk of {disk_bytes} bytes: raise limits.disk_bytes"


def _of_program(program: pb.Program) -> Iterator[Violation]:
    if program.language not in (pb.LANGUAGE_UNSPECIFIED, pb.LANGUAGE_PYTHON):
        yield "program.language", f"only Python is supported, got {program.language}"
    if not program.code and not program.tests:
        yield "program.code", "must not be empty"
    for name in ("code", "tests", "expected_output"):
        size = len(getattr(program, name).encode())
        if size > CODE_LIMIT:
            yield f"program.{name}", f"at most {CODE_LIMIT} bytes, got {size}"
    if len(program.stdin) > STDIN_LIMIT:
        yield "program.stdin", f"at most {STDIN_LIMIT} bytes, got {len(program.stdin)}"
    if program.tests and program.HasField("expected_output"):
        yield "program.expected_output", "must be empty for a program with tests: send one or the other"


def _of_limits(limits: pb.Limits, profile: Profile) -> Iterator[Violation]:
    for field in limits.DESCRIPTOR.fields:
        value = getattr(limits, field.name)
        most = getattr(profile.maxima, field.name)
        least = _SMALLEST.get(field.name, 0)
        if not math.isfinite(value) or value < 0:
            yield f"limits.{field.name}", "must be positive, or 0 for the profile's default"
        elif value > most:
            yield (
                f"limits.{field.name}",
                f"at most {_amount(field.name, most)} in profile {profile.name!r}, got {_amount(field.name, value)}",
            )
        elif 0 < value < least:
            yield f"limits.{field.name}", f"at least {_amount(field.name, least)}, got {_amount(field.name, value)}"


def _amount(field: str, value: float) -> str:
    return f"{value:.0f} ({value / MIB:.4g} MiB)" if field.endswith("_bytes") else f"{value:g}"


def resolved_limits(profiles: Iterable[str]) -> list[pb.ProfileLimits]:
    """Return the effective limits of profiles, as `checked` applies them.

    Args:
        profiles: Names reported by a runner. Profiles unknown to this gateway are left out: no request may name them.
    """
    return [
        pb.ProfileLimits(
            profile=name,
            defaults=pb.Limits(**dataclasses.asdict(PROFILES[name].defaults)),
            maxima=pb.Limits(**dataclasses.asdict(PROFILES[name].maxima)),
        )
        for name in profiles
        if name in PROFILES
    ]


def checked(request: pb.ExecuteRequest) -> pb.ExecuteRequest:
    """Return a copy of a request with every default filled in.

    Raises:
        InvalidArgument: The message names every invalid field.
    """
    complete = pb.ExecuteRequest()
    complete.CopyFrom(request)
    complete.profile = request.profile or DEFAULT.name
    violations: list[Violation] = []
    if complete.profile not in PROFILES:
        known = " and ".join(map(repr, PROFILES))
        violations.append(("profile", f"unknown profile {complete.profile!r}; the runners have {known}"))
    else:
        profile = PROFILES[complete.profile]
        violations += _of_limits(request.limits, profile)
        for field in complete.limits.DESCRIPTOR.fields:
            if not getattr(complete.limits, field.name):
                setattr(complete.limits, field.name, getattr(profile.defaults, field.name))
    violations += _of_program(request.program)
    violations += _of_files(request.program, complete.limits.disk_bytes)
    if not 0 <= request.runs <= RUNS_LIMIT:
        violations.append(("runs", f"must be 0 to {RUNS_LIMIT}, got {request.runs}"))
    if len(request.request_id.encode()) > _REQUEST_ID_LIMIT:
        violations.append(("request_id", f"at most {_REQUEST_ID_LIMIT} bytes"))
    if violations:
        raise InvalidArgument(violations=violations)
    complete.runs = max(request.runs, 1)
    return complete
