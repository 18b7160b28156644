"""Files named in docs/extending.md exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[4]
BASES = (
    ROOT,
    ROOT / "services/coordinator/src/codealign/coordinator",
    ROOT / "services/inference/src/codealign/inference",
)
PATH = re.compile(r"`([\w./-]+(?:\.(?:py|proto|sh|yaml|toml)|/))`")


def test_every_file_that_it_names_is_there() -> None:
    named = PATH.findall((ROOT / "docs/extending.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    missing = [path for path in named if not any((base / path).exists() for base in BASES)]
    # A folder that every pipeline may have.
    assert missing == ["few_shots/"] * missing.count("few_shots/")
