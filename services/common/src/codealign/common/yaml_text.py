"""Quotes text for the YAML front matter of cards."""

from __future__ import annotations

import json
import re

# Characters that YAML cannot contain or treats as line ends. JSON escapes those below a space itself.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def quoted(text: str) -> str:
    """Return the text as a double-quoted YAML string on one line, keeping readable characters."""
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
