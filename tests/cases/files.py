"""Case files: one JSON object per line, each with a unique name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def cases(file: str) -> dict[str, dict[str, Any]]:
    """Return the cases of a file in this directory, by name."""
    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").rstrip("\n").split("\n")
    found = {case["name"]: case for case in map(json.loads, lines)}
    assert len(found) == len(lines), f"{file}: two cases have one name"
    return found
