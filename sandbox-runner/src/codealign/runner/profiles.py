"""Profiles: which modules are already imported when a program starts, and its default and largest limits."""

from __future__ import annotations

import dataclasses
import functools
import re

MIB = 1024 * 1024
TIME_FACTOR = 3
"""Times its limit of time: then an execution ends, whether it had a processor or not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What one execution may use. Field names and units are those of the contract's `Limits`."""

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    processes: int
    disk_bytes: int
    output_bytes: int
    output_kill_bytes: int
    threads: int


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """A named, warm interpreter."""

    name: str
    modules: tuple[str, ...]
    """Imported by every fork server, so that a program's own import of them costs nothing."""
    more: tuple[str, ...]
    """Imported by a slot's second fork server too, which serves programs that name one of these. What is warm is
    copied for each execution, so a program that needs little of it is better served by the first."""
    defaults: Limits
    maxima: Limits
    packages: tuple[str, ...] = ()
    """Taken into the runner's root from where the gateway, or the image, has them."""
    packaged: tuple[str, ...] = ()
    """Modules of the packages, imported by a third fork server of each slot. Everything of a package that loads machine
    code must be listed: what a program has loaded later is taken for its own."""

    @property
    def offered(self) -> tuple[str, ...]:
        """The profiles that requests to its runners may name; its own is the first."""
        return (self.name, DEFAULT.name) if self.packages else (self.name,)

    def wants_more(self, *sources: str) -> bool:
        """Whether a program's text names one of `more`. A wrong guess costs time, nothing else."""
        return _name_one(self.more, sources)

    def wants_packages(self, *sources: str) -> bool:
        """Whether a program's text names a package. Only then can the program import it."""
        return _name_one(self.packages, sources)


def _name_one(modules: tuple[str, ...], sources: tuple[str, ...]) -> bool:
    return bool(modules) and any(_names(modules).search(source) for source in sources)


@functools.cache
def _names(modules: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(modules)})\b")


DEFAULT = Profile(
    name="default",
    # What most generated programs import.
    modules=(
        "bisect",
        "collections",
        "collections.abc",
        "contextlib",
        "functools",
        "heapq",
        "io",
        "itertools",
        "math",
        "operator",
        "re",
        "string",
        "time",
        "traceback",
        "types",
        "typing",
    ),
    # What some do, and what is heavy: `dataclasses` (with `inspect`) and `unittest` are a third of the memory.
    more=(
        "abc",
        "asyncio",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "inspect",
        "json",
        "random",
        "statistics",
        "textwrap",
        "threading",
        "unittest",
    ),
    defaults=Limits(
        wall_seconds=10.0,
        cpu_seconds=10.0,
        memory_bytes=512 * MIB,
        processes=40,
        disk_bytes=64 * MIB,
        output_bytes=64 * 1024,
        output_kill_bytes=16 * MIB,
        threads=128,
    ),
    maxima=Limits(
        wall_seconds=60.0,
        cpu_seconds=60.0,
        memory_bytes=2048 * MIB,
        processes=128,
        disk_bytes=512 * MIB,
        output_bytes=1 * MIB,
        output_kill_bytes=64 * MIB,
        threads=256,
    ),
)

_NUMPY = ("numpy", "numpy.fft", "numpy.linalg", "numpy.ma", "numpy.polynomial", "numpy.random")

NUMPY = dataclasses.replace(DEFAULT, name="numpy", packages=("numpy",), packaged=_NUMPY)

PROFILES: dict[str, Profile] = {each.name: each for each in (DEFAULT, NUMPY)}
