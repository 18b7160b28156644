"""Starts a program that dies with this gateway: run as a script between the gateway and what it starts.

    python -I -S launch.py PARENT COMMAND...

PARENT is the gateway's process id. The parent-death signal survives exec; the check after it closes the gap in which
the gateway may have died before it was set.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606
