"""Ports for servers that need one before they start, or the same one when they start again."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20_000, 32_000
"""Below Linux's range for outgoing connections (from 32768), one of which could take a port between two starts."""

_dice = random.SystemRandom()  # test processes that were seeded alike would choose the same ports


def free_port() -> int:
    """Return a port that nothing listens on."""
    while True:
        port = _dice.randrange(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
