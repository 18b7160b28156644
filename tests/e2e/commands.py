"""The `codealign` command as a user types it, on recorded completions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECORDING = Path(__file__).parent / "recording.jsonl"
RECORDED_UNDER = (3, 11, 7)
RECORDED = [
    pytest.mark.gvisor,
    pytest.mark.skipif(
        sys.version_info[:3] != RECORDED_UNDER and not os.environ.get("CI"),
        reason=f"the recording's seeds are those of Python {'.'.join(map(str, RECORDED_UNDER))}",
    ),
]


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "codealign.cli.main", *arguments, "--home", str(home)]


def codealign(home: Path, *arguments: str) -> str:
    ended = subprocess.run(command(home, *arguments), capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, f"{arguments}: {ended.stdout[-1500:]}{ended.stderr[-1500:]}"
    return ended.stdout
