# tries: ends its process group
# verdict: CRASHED

import os
import signal

os.kill(0, signal.SIGTERM)
