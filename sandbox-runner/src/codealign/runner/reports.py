"""Contents of a report from the witness. `native.c` uses the same numbers."""

from __future__ import annotations

import enum


class Kind(enum.IntEnum):
    """Kind of a report."""

    BEGAN = 0
    PROVED = 1
    """The last statement ran; with tests, an assertion was executed, none failed, and nothing casts doubt on that."""
    UNPROVED = 2
    """The last statement ran, without such a proof."""
    FAILED = 3
    RAISED = 4
    UNCOMPILED = 5
    UNASSERTED = 6


class Flag(enum.IntFlag):
    """Actions of the program so far."""

    STARTED = 1
    """Tried to start a process."""
    TRACED = 2
    """Set a trace function, which can skip statements."""
    TAMPERED = 4
    """Accessed memory or code objects, with which it could change its tests."""
    FAILURE = 8
    """An assertion of the tests failed."""
    UNITTEST = 16
    """Changed the unittest module that its tests use."""
