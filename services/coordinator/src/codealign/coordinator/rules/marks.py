"""Rule for texts that contain lines of the prompts' own form.

An instruction from a model or a file is put into further prompts between tags. A line that is a tag or an example's
heading would end its section there, or pretend to be another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from codealign.coordinator.reading.section import HEADING
from codealign.coordinator.rules.seeds import Drop

TAGS = ("code", "property", "concepts", "task", "answer", "tests", "method", "harder")
"""Names of the tags in the pipelines' prompts."""
RULES: Mapping[str, str] = {"instruction.prompt-marks": "contains a line of the prompts: a tag or an example's heading"}
"""The rule and its meaning."""
_MARK = re.compile(rf"^[ \t]*(?:</?(?:{'|'.join(TAGS)})>[ \t\r]*$|{HEADING} \d)", re.MULTILINE | re.IGNORECASE)


def marks_drop(text: str) -> Drop | None:
    """Return the rule if it drops a text, or None."""
    found = _MARK.search(text)
    return Drop("instruction.prompt-marks", f"contains the line {found.group().strip()!r}") if found else None
