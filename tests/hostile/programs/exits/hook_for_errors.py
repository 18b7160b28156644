# tries: turns every uncaught exception into a successful end
# verdict: RAISED

import os
import sys

sys.excepthook = lambda *error: os._exit(0)
raise ValueError("uncaught")
