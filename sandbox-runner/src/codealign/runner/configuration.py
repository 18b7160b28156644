"""What a runner is told about itself, and what its programs are told about where they run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Literal, Self

from codealign.runner.profiles import MIB, Profile

_BASE_MEMORY = 512 * MIB
"""What supervisor, fork servers and the caches of the sandbox's kernel may take."""
_GIVEN = ("PATH", "LD_LIBRARY_PATH")
"""Of the supervisor's own environment, what a program needs too."""
_PROGRAM_ENVIRONMENT = {
    "HOME": "/box/work",
    # The user has no entry in /etc/passwd: each slot has one of its own.
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "TMPDIR": "/tmp",  # noqa: S108 (a path inside the box)
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # The order of sets is part of what a program does: the same here and in its own child interpreters.
    "PYTHONHASHSEED": "0",
    # Each further arena reserves 64 MiB of addresses, which the memory limit counts.
    "MALLOC_ARENA_MAX": "1",
    # One contiguous heap instead of Python's own arenas: fewer page faults after each fork, which is what an
    # execution mostly costs inside gVisor (10 to 20% more executions per second).
    "PYTHONMALLOC": "malloc",
    "MALLOC_TOP_PAD_": str(1024 * 1024),
    # A fork server has one thread; numpy would start more.
    "OPENBLAS_NUM_THREADS": "1",
}

PROGRAM_VARIABLES = frozenset((*_GIVEN, *_PROGRAM_ENVIRONMENT))
"""The names of all variables that a program may find."""


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """A runner's own, the same for every transport."""

    name: str
    slots: int
    profile: str
    backend: str
    platform: str = ""
    gvisor_version: str = ""
    image_digest: str = ""
    hidden: tuple[str, ...] = ()
    """Paths that the files probe looks for, and must not find."""
    isolation: Literal["gvisor", "process"] = "gvisor"
    """process: work although this is no gVisor. For debugging; every result says so."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: It is no such text.
        """
        try:
            fields = json.loads(text)
            fields["hidden"] = tuple(fields.get("hidden", ()))
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"not a runner's configuration: {error}") from None

    def to_json(self) -> str:
        """For the command line of a supervisor."""
        return json.dumps(dataclasses.asdict(self))


def box_bytes(profile: Profile, slots: int) -> int:
    """The most memory that a whole box may use, bytes: every slot at its default, or one at its maximum."""
    usual = slots * (profile.defaults.memory_bytes + profile.defaults.disk_bytes)
    return max(usual, profile.maxima.memory_bytes + profile.maxima.disk_bytes) + _BASE_MEMORY


def program_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a program: nothing else of the supervisor's own reaches it."""
    return {name: own[name] for name in _GIVEN if name in own} | _PROGRAM_ENVIRONMENT
