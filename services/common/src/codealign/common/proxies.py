"""Which servers are reached without the proxy that the environment names.

A proxy is the way to servers elsewhere. To this machine, to its own network and to names that a cluster alone knows it
is no way: it would connect to itself, or refuse.
"""

from __future__ import annotations

import ipaddress
import re

_SCHEME = re.compile(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*/)?|https?://)", re.IGNORECASE)
_UNIX = ("unix:", "unix-abstract:", "vsock:")


def is_near(address: str) -> bool:
    """No proxy lies on the way to this address.

    Args:
        address: As gRPC takes it (`host:port`, `[::1]:443`, `dns:///host`, `unix:/path`), or an HTTP URL.
    """
    if address.startswith(_UNIX):
        return True
    host = _host(address)
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        pass
    # A name without a dot is looked up in the search list of this machine or namespace.
    return "." not in host or host.endswith((".localhost", ".svc")) or ".svc." in host


def _host(address: str) -> str:
    """The host of an address, in lower case; of a list of them the first one's."""
    rest = _SCHEME.sub("", address, count=1).split("/")[0].split(",")[0].rpartition("@")[2].lower()
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest if rest.count(":") > 1 else rest.partition(":")[0].rstrip(".")
