"""Run by a test: publishes, and is killed (SIGKILL) at a given point.

kill_publish.py <database url> <versions folder> <point>
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codealign.dataset.publishing import folders, publisher
from codealign.dataset.publishing.card import Description
from codealign.dataset.storage import catalogue
from codealign.dataset.storage.database import Database


def die(*_args: object, **_kwargs: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_file(name: str, write: Callable[[Path, str], None]) -> Callable[[Path, str], None]:
    def half(path: Path, text: str) -> None:
        if path.name == name:
            write(path, text[: len(text) // 2])
            die()
        write(path, text)

    return half


url, versions, point = sys.argv[1:]
write_text = publisher._write_text
replaced: tuple[object, str, Callable[..., Any]] = {
    "in the rows": (publisher, "row_of", die),
    "in the card": (publisher, "_write_text", die_at_file("README.md", write_text)),
    "in the manifest": (publisher, "_write_text", die_at_file("manifest.json", write_text)),
    "before the rename": (folders.VersionFolders, "_rename", die),
    "after the rename": (catalogue, "add", die),
}[point]
setattr(*replaced)
database = Database(url)
publisher.Publisher(database, folders.VersionFolders(versions, Path(versions))).publish(
    "run", Description("", "replayable", {})
)
