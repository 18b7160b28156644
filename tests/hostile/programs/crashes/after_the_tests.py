# tries: crashes when its tests have passed
# verdict: CRASHED

import atexit
import os

atexit.register(os.abort)
