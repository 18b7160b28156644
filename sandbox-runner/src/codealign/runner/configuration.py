"""Configuration of a runner, and the environment of its programs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Literal, Self

from codealign.runner.profiles import MIB, Profile

_BASE_MEMORY = 512 * MIB
"""Memory for the supervisor, the fork servers and the caches of the sandbox's kernel, in bytes."""
_GIVEN = ("PATH", "LD_LIBRARY_PATH")
"""Variables that programs inherit from the supervisor's environment."""
_PROGRAM_ENVIRONMENT = {
    "HOME": "/box/work",
    # The user has no entry in /etc/passwd, because each slot has a different one.
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "TMPDIR": "/tmp",  # noqa: S108 (a path inside the sandbox)
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Set order is part of a program's behaviour. This keeps it the same here and in child interpreters.
    "PYTHONHASHSEED": "0",
    # Each further arena reserves 64 MiB of address space, which counts towards the memory limit.
    "MALLOC_ARENA_MAX": "1",
    # One contiguous heap instead of Python's own arenas causes fewer page faults after each fork. They dominate the
    # cost of an execution inside gVisor (10 to 20% more executions per second).
    "PYTHONMALLOC": "malloc",
    "MALLOC_TOP_PAD_": str(1024 * 1024),
    # A fork server must be single-threaded; numpy would start more threads.
    "OPENBLAS_NUM_THREADS": "1",
}

PROGRAM_VARIABLES = frozenset((*_GIVEN, *_PROGRAM_ENVIRONMENT))
"""Names of all variables that a program may see."""


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """Configuration of a runner, the same for every transport."""

    name: str
    slots: int
    backend: str
    platform: str = ""
    gvisor_version: str = ""
    image_digest: str = ""
    hidden: tuple[str, ...] = ()
    """Host paths that the file probe looks for and must not find."""
    isolation: Literal["gvisor", "process"] = "gvisor"
    """"process": run without gVisor. For debugging; every result records it."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the output of `to_json`.

        Raises:
            ValueError: The text is not a valid configuration.
        """
        try:
            fields = json.loads(text)
            fields["hidden"] = tuple(fields.get("hidden", ()))
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"invalid runner configuration: {error}") from None

    def to_json(self) -> str:
        """Serialise the configuration for a supervisor's command line."""
        return json.dumps(dataclasses.asdict(self))


def box_bytes(profile: Profile, slots: int) -> int:
    """Return the memory limit of a sandbox in bytes: all slots at the default limit, or one at the maximum."""
    usual = slots * (profile.defaults.memory_bytes + profile.defaults.disk_bytes)
    return max(usual, profile.maxima.memory_bytes + profile.maxima.disk_bytes) + _BASE_MEMORY


def program_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the complete environment of a program. No other variable of the supervisor reaches it."""
    return {name: own[name] for name in _GIVEN if name in own} | _PROGRAM_ENVIRONMENT


def use_program_environment() -> None:
    """Make the environment of programs this process's own. Fork servers inherit it; it decides how they allocate."""
    environment = program_environment(os.environ)
    os.environ.clear()
    os.environ.update(environment)
