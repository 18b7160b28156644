# tries: rests on the order of a set of strings, which is the same in each run and in its children
# verdict: PASSED
# runs: 3

import subprocess
import sys

WORDS = "{'spam', 'eggs', 'bacon', 'ham', 'beans'}"
here = str(list(eval(WORDS)))
there = subprocess.run([sys.executable, "-c", f"print(list({WORDS}))"], capture_output=True, text=True).stdout
# --- tests ---
assert here == there.strip()
