"""Who may call which RPCs. A caller is the common name of its client certificate, and nothing else of it.

A release's certificates bear the names of their components (`charts/codealign/templates/certificates.yaml`). Each
server says beside its registration what each of them may call; what is not said is refused. Without mutual TLS
nobody has a name and nothing is refused: that is loopback, or a mesh with rules of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf import descriptor_pool

from codealign.common import certificates
from codealign.common.errors import PermissionDenied

Callers = Mapping[str, Sequence[str]]
"""For each caller the methods of one gRPC service that it may call."""

ALL: Final = ("*",)
"""Every method of the service, those included that a later release adds."""

KNOWN: Final = frozenset(
    {"dataset", "coordinator", "sandbox", "inference", "trainer", "operator", "keda", "client"},
)
"""Who may be named as a caller. `runners` is not among them: hostile programs run beside a runner's key, so its
certificate is good for being a runner and opens nothing."""

REFLECTION: Final[Callers] = dict.fromkeys(KNOWN, ALL)
"""Contracts are no secret among the parts of a release."""


def check(service: str, callers: Callers) -> None:
    """Hold a list against the contract, so that a misspelt name is an error at the start and not a closed door.

    Args:
        service: The gRPC service's full name.
        callers: Its list.

    Raises:
        ValueError: It names a caller or a method that does not exist.
    """
    try:
        methods = {method.name for method in descriptor_pool.Default().FindServiceByName(service).methods}
    except KeyError:
        raise ValueError(f"no gRPC service {service!r} is known: is its generated module imported?") from None
    for caller, allowed in callers.items():
        if caller not in KNOWN:
            raise ValueError(f"{service}: no caller {caller!r}; there are {', '.join(sorted(KNOWN))}")
        if tuple(allowed) == ALL:
            continue
        if wrong := sorted(set(allowed) - methods):
            raise ValueError(
                f"{service}: {caller!r} is allowed {', '.join(wrong)}, which it does not have; it has "
                f"{', '.join(sorted(methods))}"
            )


class Access:
    """The lists of one server.

    Args:
        services: Each gRPC service's list, by its full name.
    """

    def __init__(self, services: Mapping[str, Callers]) -> None:
        self._services = services

    def check(self, method: str, context: Any) -> str:
        """Let a caller in.

        Args:
            method: As in `/codealign.api.sandbox.v1.SandboxService/Execute`.
            context: The call's.

        Returns:
            Its name.

        Raises:
            PermissionDenied: It may not call this.
        """
        service, _, name = method.removeprefix("/").partition("/")
        caller = caller_of(context)
        callers = self._services.get(service, {})
        if caller and _allows(callers, caller, name):
            return caller
        others = sorted(each for each in callers if _allows(callers, each, name))
        who = f"{caller!r}" if caller else "a certificate with no common name, or with several,"
        may = f"use a certificate of {' or '.join(others)}" if others else "no certificate opens it"
        raise PermissionDenied(f"{who} may not call {service}/{name}: {may}")


def _allows(callers: Callers, caller: str, name: str) -> bool:
    allowed = callers.get(caller, ())
    return tuple(allowed) == ALL or name in allowed


def caller_of(context: Any) -> str | None:
    """The one common name of the client's certificate; None where it has none, or several."""
    # Not `x509_common_name`: of several that is one, and which one is for whoever wrote the certificate to choose.
    (pem,) = context.auth_context().get("x509_pem_cert") or (b"",)
    names = _common_names(bytes(pem))
    return names[0] if len(names) == 1 and names[0] else None


@functools.lru_cache(maxsize=64)
def _common_names(pem: bytes) -> tuple[str, ...]:
    try:
        return certificates.read(pem)[0].common_names
    except ValueError:
        return ()
