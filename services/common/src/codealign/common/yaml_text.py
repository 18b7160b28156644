"""Text in the YAML front matter of cards."""

from __future__ import annotations

import json
import re

# What YAML cannot hold as it is, or takes for a line's end. JSON escapes the characters below a blank itself.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def quoted(text: str) -> str:
    """The text as a double-quoted YAML string on one line, with the characters that people read."""
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
