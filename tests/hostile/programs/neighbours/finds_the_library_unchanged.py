# tries: uses what the program before it has changed
# verdict: PASSED
# after: neighbours/changes_the_library

import json
import math
import sys

# --- tests ---
assert len([1, 2, 3]) == 3
assert math.pi > 3.14
assert json.dumps([1]) == "[1]"
assert "hostile" not in sys.modules
assert "/tmp" not in sys.path
assert sys.getrecursionlimit() == 1000
assert 3 + 4 == int("7")
assert str(7) == "7"
