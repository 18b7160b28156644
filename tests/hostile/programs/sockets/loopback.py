# tries: finds whatever listens on loopback
# verdict: PASSED

import socket

found = []
for port in range(1, 2000):
    with socket.socket() as client:
        if client.connect_ex(("127.0.0.1", port)) == 0:
            found.append(port)
# --- tests ---
assert found == []
