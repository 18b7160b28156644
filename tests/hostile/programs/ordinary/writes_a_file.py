# tries: nothing; files and modules of the library
# verdict: PASSED

import json
import tempfile
from pathlib import Path


def save(value):
    path = Path(tempfile.mkdtemp()) / "value.json"
    path.write_text(json.dumps(value))
    return path


# --- tests ---
assert json.loads(save({"a": [1, 2]}).read_text()) == {"a": [1, 2]}
