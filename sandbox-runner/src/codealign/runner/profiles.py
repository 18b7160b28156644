"""Profiles: which modules are already imported when a program starts, and its default and largest limits."""

import dataclasses

MIB = 1024 * 1024


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


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """A named, warm interpreter."""

    name: str
    modules: tuple[str, ...]
    """Imported by the fork server, so that a program's own import of them costs nothing."""
    defaults: Limits
    maxima: Limits


DEFAULT = Profile(
    name="default",
    # What generated programs import most; each further C extension adds mappings, which every fork pays for.
    modules=(
        "abc",
        "bisect",
        "collections",
        "collections.abc",
        "contextlib",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "io",
        "itertools",
        "json",
        "math",
        "operator",
        "random",
        "re",
        "statistics",
        "string",
        "textwrap",
        "threading",
        "time",
        "traceback",
        "types",
        "typing",
        "unittest",
    ),
    defaults=Limits(
        wall_seconds=10.0,
        cpu_seconds=10.0,
        memory_bytes=512 * MIB,
        processes=16,
        disk_bytes=64 * MIB,
        output_bytes=64 * 1024,
        output_kill_bytes=16 * MIB,
    ),
    maxima=Limits(
        wall_seconds=60.0,
        cpu_seconds=60.0,
        memory_bytes=2048 * MIB,
        processes=64,
        disk_bytes=512 * MIB,
        output_bytes=1 * MIB,
        output_kill_bytes=64 * MIB,
    ),
)

PROFILES: dict[str, Profile] = {DEFAULT.name: DEFAULT}
