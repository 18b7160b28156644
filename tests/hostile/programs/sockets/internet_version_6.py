# tries: connects to the outside by IPv6 addresses, also those that stand for IPv4
# verdict: PASSED

import socket

connected = []
for host in ("2606:4700:4700::1111", "::ffff:1.1.1.1", "fe80::1%1", "64:ff9b::101:101"):
    try:
        with socket.socket(socket.AF_INET6) as client:
            client.settimeout(1)
            client.connect((host, 443))
            connected.append(host)
    except OSError:
        pass
# --- tests ---
assert connected == []
