# tries: sockets that see or forge every packet
# verdict: PASSED

import socket

made = []
for family, kind, protocol in (
    (socket.AF_PACKET, socket.SOCK_RAW, 0x0300),
    (socket.AF_PACKET, socket.SOCK_DGRAM, 0x0300),
    (socket.AF_INET, socket.SOCK_RAW, 1),
    (socket.AF_INET, socket.SOCK_RAW, 255),
    (socket.AF_INET6, socket.SOCK_RAW, 58),
):
    try:
        socket.socket(family, kind, protocol)
        made.append((family, kind))
    except OSError:
        pass
# --- tests ---
assert made == []
