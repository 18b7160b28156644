"""What every request must meet and every response carries, whatever page it is."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing inline and nothing from elsewhere: text that became markup by mistake could still load and run nothing."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


_HOST = re.compile(r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<plain>[^\[\]:@/\s]+))(?::[0-9]{0,5})?", re.ASCII)


class Guard:
    """Middleware: refuses other methods than reading and other host names, and adds the headers.

    A page elsewhere could let its own name resolve to 127.0.0.1 and then read the console from the browser of the
    person who runs it. Its requests name its host, so they are refused.

    Args:
        app: The application.
        names: Host names that requests may name, without ports.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1 or _name(given[0]) not in self._names:
            return PlainTextResponse(
                "This console does not answer to this host name. Open it as 127.0.0.1 or localhost; in a cluster, add "
                "the name to console.hostNames.\n",
                421,
            )
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("The console only reads.\n", 405, {"Allow": "GET, HEAD"})
        return None


def _name(host: str) -> str:
    """Return a Host header's name without its port, or "" if it is not a name with a port."""
    found = _HOST.fullmatch(host)
    return (found["bracketed"] or found["plain"]).lower() if found else ""
