# tries: becomes an interpreter that runs a program with passing tests
# verdict: EXITED_EARLY

import os
import sys

os.execv(sys.executable, ["python", "-c", "assert 1 + 1 == 2; print('OK')"])
