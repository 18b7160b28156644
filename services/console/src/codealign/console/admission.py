"""Which certificates may open the console: only people's, not those of a release's components."""

from __future__ import annotations

import asyncio
import ssl

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from codealign.common import certificates
from codealign.common.logs import get_logger

PEOPLE = "client"
"""Common name of people's certificates."""
_REFUSED = (
    b"This certificate may not open the console: its common name must be client. "
    b"`codealign certificate` fetches such a certificate.\n"
)

log = get_logger(__name__)


class PeopleOnly(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # a class that is chosen at import
    """HTTP for connections whose certificate has people's common name.

    TLS has verified that the certificate is the authority's. But components have such certificates too, and through
    the console they could read what the services refuse to them; and the authority may be an organization's.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Admit or refuse a connection."""
        names = _names(transport.get_extra_info("ssl_object"))
        if names == (PEOPLE,):
            super().connection_made(transport)
            return
        log.warning("certificate_refused", names=list(names))
        transport.set_protocol(asyncio.Protocol())
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: {len(_REFUSED)}\r\n"
        transport.write(f"{head}Connection: close\r\n\r\n".encode() + _REFUSED)
        transport.close()


def _names(connection: ssl.SSLObject) -> tuple[str, ...]:
    given = connection.getpeercert(binary_form=True)
    try:
        return certificates.read(ssl.DER_cert_to_PEM_cert(given).encode())[0].common_names if given else ()
    except ValueError:
        return ()
