# tries: writes to a device that is always full: its own disk is not
# verdict: RAISED

import os

os.write(os.open("/dev/full", os.O_WRONLY), b"x")
