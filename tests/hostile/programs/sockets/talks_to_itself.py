# tries: listens on loopback and talks to itself, which is allowed
# verdict: PASSED

import socket

with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname(), timeout=5) as client:
        accepted, _ = server.accept()
        client.sendall(b"hello")
        heard = accepted.recv(5)
        accepted.close()
# --- tests ---
assert heard == b"hello"
