# tries: a fork bomb that is none of Python's doing
# verdict: TIMED_OUT or PROCESS_LIMIT
# limits: wall_seconds=0.7

import subprocess

subprocess.run(["/bin/sh", "-c", "f() { f | f & }; f; while :; do :; done"], stderr=subprocess.DEVNULL)
