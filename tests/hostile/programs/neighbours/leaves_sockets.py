# tries: leaves servers: on loopback, at a path, under an abstract name
# verdict: PASSED

import os
import socket
import time

if os.fork() == 0:
    os.setsid()
    servers = [socket.create_server(("0.0.0.0", 47110))]
    for name in ("/tmp/hostile-socket", "\0hostile-socket"):
        servers.append(socket.socket(socket.AF_UNIX))
        servers[-1].bind(name)
        servers[-1].listen()
    time.sleep(60)
time.sleep(0.1)
