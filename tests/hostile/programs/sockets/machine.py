# tries: sockets to the machine below: of virtual machines, of the kernel's ciphers, of buses
# verdict: PASSED

import socket

connected = []
for family in (40, 38, 29, 30, 31, 17, 44):  # VSOCK, ALG, CAN, TIPC, BLUETOOTH, PACKET, XDP
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            connected.append((family, kind))
        except OSError:
            pass
# --- tests ---
assert connected == []
