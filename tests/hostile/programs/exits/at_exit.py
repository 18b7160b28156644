# tries: registers an early end for the time after the tests and leaves before them
# verdict: EXITED_EARLY

import atexit
import os

atexit.register(os._exit, 0)
raise SystemExit(0)
