"""What a report from beside a program says. `native.c` has the same numbers."""

from __future__ import annotations

import enum


class Kind(enum.IntEnum):
    """Of a report."""

    BEGAN = 0
    PROVED = 1
    """The last statement ran; with tests, an assertion was executed, none failed, and nothing casts doubt on that."""
    UNPROVED = 2
    """The last statement ran, and that is all."""
    FAILED = 3
    RAISED = 4
    UNCOMPILED = 5
    UNASSERTED = 6


class Flag(enum.IntFlag):
    """What the program did so far."""

    STARTED = 1
    """Tried to start a process."""
    TRACED = 2
    """Set a trace function, which can skip statements."""
    TAMPERED = 4
    """Reached for memory or code objects, with which it could change its tests."""
    FAILURE = 8
    """An assertion of the tests failed."""
    UNITTEST = 16
    """Changed the unittest module that its tests use."""
