# tries: listens on every kind of socket, and at a terminal, while another program runs
# verdict: PASSED

import os
import socket
import time

servers = [socket.create_server(("0.0.0.0", 47110)), socket.create_server(("::", 47111), family=socket.AF_INET6)]
for name in ("/tmp/hostile-socket", "\0hostile-socket"):
    servers.append(socket.socket(socket.AF_UNIX))
    servers[-1].bind(name)
    servers[-1].listen()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("0.0.0.0", 47112))
try:
    master, slave = os.openpty()
except OSError:
    master = None
time.sleep(0.8)
if master is not None:
    os.set_blocking(master, False)
for server in servers:
    server.setblocking(False)
datagrams.setblocking(False)


def is_silent(read, *arguments):
    try:
        read(*arguments)
    except BlockingIOError:
        return True
    return False


# --- tests ---
assert all(is_silent(server.accept) for server in servers)
assert is_silent(datagrams.recv, 10)
assert master is None or is_silent(os.read, master, 10)
