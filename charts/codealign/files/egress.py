"""`helm test`: check that a pod with a runner's policies cannot connect anywhere. Uses only the standard library."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

_API = f"{os.environ.get('KUBERNETES_SERVICE_HOST', '')}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
# The API server, the node, the cloud metadata service, the internet, and addresses from the values.
CLOSED = [_API, f"{os.environ['NODE']}:10250", "169.254.169.254:80", "1.1.1.1:443", *os.environ["CLOSED"].split()]
# A DNS query for the root domain in wire format.
QUESTION = bytes.fromhex("1234010000010000000000000000010001")


def _connects(address: str) -> str:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        # Includes refused connections: some network plugins reject this way, and all of these addresses do listen.
        return ""
    return "connected"


def _answers(server: str) -> str:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.settimeout(3)
        try:
            asked.sendto(QUESTION, (server, 53))
            asked.recv(512)
        except OSError:
            return ""
    return "answered"


def main() -> int:
    """Try every address; return 1 if any can be reached."""
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    servers = [line.split()[1] for line in lines if line.startswith("nameserver")]
    seen = {address: _connects(address) for address in CLOSED if not address.startswith(":")}
    seen |= {f"DNS {server}": _answers(server) for server in servers}
    for place, what in seen.items():
        print(f"{'FAIL' if what else 'ok  '} {place}: {what or 'unreachable'}")
    return 1 if any(seen.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
