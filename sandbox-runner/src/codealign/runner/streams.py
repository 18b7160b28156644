"""The supervisor's ends of a program's pipes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select


def _never_block(descriptor: int) -> None:
    """Like `os.set_blocking`, without asking for the flags first: a new pipe has none."""
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK)


_MUCH, _LARGE = 1 << 18, 1 << 20
"""Bytes of output from which a pipe is enlarged, and the size of gVisor's largest pipe."""


class Drain:
    """Reads a pipe to its end, keeps the first bytes and counts all.

    A program that fills its pipe waits for the supervisor, and that time is the program's. So the pipe of one that
    writes much is enlarged.
    """

    def __init__(self, keep: int) -> None:
        self.descriptor, self.program_end = os.pipe2(os.O_CLOEXEC)
        _never_block(self.descriptor)
        self._keep = keep
        self._size = 65536
        self.kept = bytearray()
        self.total = 0
        self.open = True

    def read(self) -> None:
        """Read what is available now. Sets `open` to False at the end."""
        try:
            data = os.read(self.descriptor, self._size)
        except BlockingIOError:
            return
        if not data:
            self.open = False
        self.total += len(data)
        if self.total > _MUCH and self._size < _LARGE:
            self._enlarge()
        room = self._keep - len(self.kept)
        if room > 0:
            self.kept += data[:room]

    def empty(self) -> None:
        """Read what is left in the pipe without waiting for other holders of its write end."""
        while self.open:
            before = self.total
            self.read()
            if self.total == before:
                return

    def close(self) -> None:
        """Close the supervisor's end."""
        os.close(self.descriptor)

    def _enlarge(self) -> None:
        self._size = _LARGE
        # Refused where a user's pipes have a limit together; then the pipe stays as it is.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, _LARGE)


class Feed:
    """Writes bytes to a pipe as the reader takes them, then closes it."""

    def __init__(self, data: bytes) -> None:
        self.program_end, self.descriptor = os.pipe2(os.O_CLOEXEC)
        # Less always fits into a new pipe.
        if len(data) > select.PIPE_BUF:
            _never_block(self.descriptor)
        self._left = memoryview(data)
        self.open = True
        self.write()

    def write(self) -> None:
        """Write as much as fits now."""
        try:
            while self._left:
                self._left = self._left[os.write(self.descriptor, self._left) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # The program does not read the rest.
        self.close()

    def close(self) -> None:
        """Close the supervisor's end if it is still open."""
        if self.open:
            os.close(self.descriptor)
            self.open = False
