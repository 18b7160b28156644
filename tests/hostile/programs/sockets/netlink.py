# tries: gives itself a network: an address, a route, a device
# verdict: PASSED

import socket
import struct


def ask(kind, body):
    """Sends one request to the kernel; True when it does not say no."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
            link.settimeout(1)
            link.sendto(struct.pack("IHHII", 16 + len(body), kind, 0x605, 1, 0) + body, (0, 0))
            answer = link.recv(4096)
    except OSError:
        return False
    return struct.unpack_from("i", answer, 16)[0] == 0


granted = [
    ask(16, struct.pack("BxHiII", 0, 0, 0, 1, 1) + struct.pack("HH6sxx", 10, 3, b"dummy0")),
    ask(20, struct.pack("BBBBI", 2, 24, 0, 0, 1) + struct.pack("HH4s", 8, 2, bytes([10, 9, 8, 7]))),
    ask(24, struct.pack("8BI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + struct.pack("HHI", 8, 4, 1)),
]
# --- tests ---
assert granted == [False, False, False]
