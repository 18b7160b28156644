# tries: talks to the servers and terminals of a program that runs meanwhile
# verdict: PASSED
# beside: neighbours/serves_meanwhile

import os
import socket

reached = []
for family, address in (
    (socket.AF_INET, ("127.0.0.1", 47110)),
    (socket.AF_INET6, ("::1", 47111)),
    (socket.AF_UNIX, "/tmp/hostile-socket"),
    (socket.AF_UNIX, "\0hostile-socket"),
):
    with socket.socket(family) as client:
        client.settimeout(1)
        if client.connect_ex(address) == 0:
            reached.append(address)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.sendto(b"hostile", ("127.0.0.1", 47112))
for name in os.listdir("/dev/pts") if os.path.isdir("/dev/pts") else ():
    if name.isdigit():
        try:
            os.write(os.open(f"/dev/pts/{name}", os.O_RDWR | os.O_NOCTTY), b"hostile")
            reached.append(name)
        except OSError:
            pass
# --- tests ---
assert reached == []
