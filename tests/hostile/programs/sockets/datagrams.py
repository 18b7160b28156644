# tries: sends datagrams, which need no answer, outside and to everyone
# verdict: PASSED

import socket

sent = []
for host in ("1.1.1.1", "255.255.255.255", "224.0.0.1", "169.254.1.1"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        try:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.sendto(b"hostile", (host, 53))
            sent.append(host)
        except OSError:
            pass
# --- tests ---
assert sent == []
