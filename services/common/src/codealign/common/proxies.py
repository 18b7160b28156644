"""Determines which servers are reached without the proxy in the environment.

A proxy is for servers elsewhere. It cannot reach this machine, its local network or names known only in a cluster: it
would connect to itself, or refuse.
"""

from __future__ import annotations

import ipaddress
import re

_SCHEME = re.compile(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*/)?|https?://)", re.IGNORECASE)
_UNIX = ("unix:", "unix-abstract:", "vsock:")


def bypasses_proxy(address: str) -> bool:
    """Return whether an address is reached without a proxy.

    Args:
        address: An address for gRPC (`host:port`, `[::1]:443`, `dns:///host`, `unix:/path`), or an HTTP URL.
    """
    if address.startswith(_UNIX):
        return True
    host = _host(address)
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        pass
    # A name without a dot is resolved in the search list of this machine or namespace.
    return "." not in host or host.endswith((".localhost", ".svc")) or ".svc." in host


def _host(address: str) -> str:
    """Return the host of an address in lower case; for a list of addresses, the first host."""
    rest = _SCHEME.sub("", address, count=1).split("/")[0].split(",")[0].rpartition("@")[2].lower()
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest if rest.count(":") > 1 else rest.partition(":")[0].rstrip(".")
