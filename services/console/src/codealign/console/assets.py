"""The pages' own files: the report's style sheet, the console's, and one script."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from codealign.cli.report import page as report
from codealign.console.reading import NotThere

_TYPES = {
    "report.css": "text/css; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


async def asset(request: Request) -> Response:
    """Return a file. Browsers keep it, and ask whether it has changed."""
    name = request.path_params["name"]
    if name not in _TYPES:
        raise NotThere("There is no such file.")
    content, tag = _read(name)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[name], headers=headers)


@cache
def _read(name: str) -> tuple[bytes, str]:
    if name == "report.css":
        content = report.read("page.css").encode()
    else:
        content = (files("codealign.console") / "static" / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'
