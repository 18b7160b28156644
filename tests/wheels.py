"""Serve the local wheel directories that pip is configured with to builds that cannot see them.

python tests/wheels.py find             prints the first with a wheel of torch, or nothing
python tests/wheels.py serve FOLDER     serves it on loopback; prints the port
"""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
from pathlib import Path

_PORT = 47113
"""Preferred port. It is a build argument, so a stable value keeps Docker's cache valid."""


def find() -> str:
    """Return the directory."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        if name.endswith(".find-links"):
            for place in value.strip("'").replace("\\n", " ").split():
                folder = Path(place.removeprefix("file://"))
                if folder.is_dir() and any(folder.glob("torch-*.whl")):
                    return str(folder)
    return ""


def serve(folder: str) -> None:
    """Serve until the process ends."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    for port in (_PORT, 0):
        try:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError:  # the port is in use
            continue
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["find"]:
            print(find())
        case ["serve", folder]:
            serve(folder)
        case _:
            sys.exit(__doc__)
