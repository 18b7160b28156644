"""Starts a program that dies with this gateway.

Run as a script between the gateway and the program:

    python -I -S launch.py PARENT COMMAND...

PARENT is the gateway's process id. The parent-death signal survives exec. The check after it covers the case in which
the gateway died before the signal was set.
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
