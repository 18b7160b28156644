"""Profiles: the modules that are preloaded when a program starts, and the default and maximum limits."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection

MIB = 1024 * 1024
TIME_FACTOR = 3
"""An execution ends after this multiple of its time limit, whether or not it had a processor."""


LIGHT, FULL, PACKAGED = "light", "full", "packaged"
"""Names of fork servers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one execution. Field names and units match the contract's `Limits`."""

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
    """A named set of preloaded modules and limits."""

    name: str
    modules: tuple[str, ...]
    """Imported by every fork server, so that importing them costs a program nothing."""
    more: tuple[str, ...]
    """Also imported by a slot's second fork server, which serves programs that mention one of these. Loaded modules are
    copied for each execution, so the first server is faster for programs that need few.
    """
    defaults: Limits
    maxima: Limits
    packages: tuple[str, ...] = ()
    """Packages that programs may import where the runner's root file system has them: copied from the gateway's
    environment, or installed in the image.
    """
    packaged: tuple[str, ...] = ()
    """Modules of the packages, imported by a third fork server of each slot. Must include every module that loads
    machine code: code that a program loads later counts as its own.
    """

    def with_packages(self, names: Collection[str]) -> Profile:
        """Return this profile with those of its packages that are among `names`."""
        packages = tuple(package for package in self.packages if package in names)
        packaged = tuple(module for module in self.packaged if module.partition(".")[0] in packages)
        return dataclasses.replace(self, packages=packages, packaged=packaged)

    @property
    def servers(self) -> dict[str, tuple[str, ...]]:
        """The fork servers of a slot: name and imported modules, fewest first."""
        more = (*self.modules, *self.more)
        return {LIGHT: self.modules, FULL: more} | ({PACKAGED: (*more, *self.packaged)} if self.packages else {})

    def server_of(self, *sources: str) -> str:
        """Return the name of the fork server for a program with these source texts.

        A program can only import a package if it names it. Otherwise, a wrong guess only costs time.
        """
        if _name_one(self.packages, sources):
            return PACKAGED
        return FULL if _name_one(self.more, sources) else LIGHT


def _name_one(modules: tuple[str, ...], sources: tuple[str, ...]) -> bool:
    return bool(modules) and any(_names(modules).search(source) for source in sources)


@functools.cache
def _names(modules: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(modules)})\b")


DEFAULT = Profile(
    name="default",
    # Modules that most generated programs import.
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
    # Less common or heavy modules: `dataclasses` (with `inspect`) and `unittest` take a third of the memory.
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
    packages=("numpy",),
    packaged=("numpy", "numpy.fft", "numpy.linalg", "numpy.ma", "numpy.polynomial", "numpy.random"),
)

PROFILES: dict[str, Profile] = {DEFAULT.name: DEFAULT}
