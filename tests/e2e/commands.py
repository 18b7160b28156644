"""The `codealign` command as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "codealign.cli.main", *arguments, "--home", str(home)]


def codealign(home: Path, *arguments: str) -> str:
    ended = subprocess.run(command(home, *arguments), capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, f"{arguments}: {ended.stdout[-1500:]}{ended.stderr[-1500:]}"
    return ended.stdout
