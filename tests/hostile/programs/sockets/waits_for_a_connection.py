# tries: waits for someone to connect
# verdict: TIMED_OUT
# limits: wall_seconds=0.3

import socket

socket.create_server(("0.0.0.0", 8080)).accept()
