# tries: connects to the outside, by address and by name
# verdict: PASSED

import errno
import socket
import urllib.request

connected = []
for address in (("1.1.1.1", 53), ("8.8.8.8", 443), ("169.254.169.254", 80), ("10.0.0.1", 22), ("172.17.0.1", 2375)):
    with socket.socket() as client:
        client.settimeout(1)
        if client.connect_ex(address) not in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            connected.append(address)
try:
    urllib.request.urlopen("http://example.com", timeout=1)
    connected.append("example.com")
except OSError:
    pass
# --- tests ---
assert connected == []
