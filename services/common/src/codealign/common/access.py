"""Controls who may call which RPCs. A caller is identified by the common name of its client certificate.

A release's certificates carry the names of its components (`charts/codealign/templates/certificates.yaml`). Each
server lists, with its registration, which methods each caller may use; everything else is refused. Without mutual TLS,
callers have no names and nothing is refused: this is for loopback, or for a mesh with its own rules.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf import descriptor_pool

from codealign.common import certificates
from codealign.common.errors import PermissionDenied

Callers = Mapping[str, Sequence[str]]
"""Methods of one gRPC service that each caller may use."""

ALL: Final = ("*",)
"""Every method of the service, including those that a later release adds."""

CALLER_NAMES: Final = frozenset(
    {"dataset", "coordinator", "sandbox", "inference", "trainer", "operator", "keda", "console", "client"},
)
"""Names of allowed callers. `runners` is not among them: hostile programs run beside a runner's key, so its certificate
is only valid as a server certificate.
"""

REFLECTION: Final[Callers] = dict.fromkeys(CALLER_NAMES, ALL)
"""Contracts are not secret within a release."""


def check(service: str, callers: Callers) -> None:
    """Check a list of callers against the contract, so that a misspelt name fails at start-up.

    Args:
        service: The gRPC service's full name.
        callers: Its list of callers.

    Raises:
        ValueError: The list names a caller or a method that does not exist.
    """
    try:
        methods = {method.name for method in descriptor_pool.Default().FindServiceByName(service).methods}
    except KeyError:
        raise ValueError(f"unknown gRPC service {service!r}: is its generated module imported?") from None
    for caller, allowed in callers.items():
        if caller not in CALLER_NAMES:
            raise ValueError(f"{service}: unknown caller {caller!r}; known callers: {', '.join(sorted(CALLER_NAMES))}")
        if tuple(allowed) == ALL:
            continue
        if wrong := sorted(set(allowed) - methods):
            raise ValueError(
                f"{service}: unknown methods for {caller!r}: {', '.join(wrong)}; the service has "
                f"{', '.join(sorted(methods))}"
            )


class Access:
    """Access lists of one server.

    Args:
        services: The callers of each gRPC service, by its full name.
    """

    def __init__(self, services: Mapping[str, Callers]) -> None:
        self._services = services

    def check(self, method: str, context: Any) -> str:
        """Authorize a call.

        Args:
            method: Full name, such as `/codealign.api.sandbox.v1.SandboxService/Execute`.
            context: The context of the call.

        Returns:
            The caller's name.

        Raises:
            PermissionDenied: The caller may not call this method.
        """
        service, _, name = method.removeprefix("/").partition("/")
        caller = caller_of(context)
        callers = self._services.get(service, {})
        if caller and _allows(callers, caller, name):
            return caller
        others = sorted(each for each in callers if _allows(callers, each, name))
        who = f"{caller!r}" if caller else "a certificate without exactly one common name"
        may = f"use a certificate of {' or '.join(others)}" if others else "no certificate allows it"
        raise PermissionDenied(f"{who} may not call {service}/{name}: {may}")


def _allows(callers: Callers, caller: str, name: str) -> bool:
    allowed = callers.get(caller, ())
    return tuple(allowed) == ALL or name in allowed


def caller_of(context: Any) -> str | None:
    """Return the only common name of the client's certificate, or None if it has none or several."""
    # Not `x509_common_name`: of several names it returns one, and the certificate's author could choose which.
    (pem,) = context.auth_context().get("x509_pem_cert") or (b"",)
    names = _common_names(bytes(pem))
    return names[0] if len(names) == 1 and names[0] else None


def peer_of(context: Any) -> str:
    """Return the caller for turn-taking: the client certificate's name, or the connection if there is none."""
    names = context.peer_identities() or ()
    return ",".join(sorted(name.decode("utf-8", "replace") for name in names)) or str(context.peer())


@functools.lru_cache(maxsize=64)
def _common_names(pem: bytes) -> tuple[str, ...]:
    try:
        return certificates.read(pem)[0].common_names
    except ValueError:
        return ()
