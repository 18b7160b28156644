# tries: connects to the sockets of services of the host, by path and by abstract name
# verdict: PASSED

import socket

connected = []
for name in (
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/tmp/.X11-unix/X0",
    "\0/tmp/.X11-unix/X0",
    "\0/containerd-shim/",
    "\0runsc-sandbox",
):
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(name) == 0:
            connected.append(name)
# --- tests ---
assert connected == []
