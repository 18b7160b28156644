# tries: connects to servers of the program that ran before it
# verdict: PASSED
# after: neighbours/leaves_sockets

import socket


def connects(family, address):
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


# --- tests ---
assert not connects(socket.AF_INET, ("127.0.0.1", 47110))
assert not connects(socket.AF_UNIX, "/tmp/hostile-socket")
assert not connects(socket.AF_UNIX, "\0hostile-socket")
socket.create_server(("0.0.0.0", 47110))
