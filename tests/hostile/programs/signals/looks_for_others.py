# tries: signals every process number that there could be
# verdict: PASSED

import os

found = []
for number in range(2, 5000):
    try:
        os.kill(number, 0)
        found.append(number)
    except ProcessLookupError:
        pass
# --- tests ---
assert found == []
