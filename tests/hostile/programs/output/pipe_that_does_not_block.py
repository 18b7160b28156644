# tries: writes to a full pipe that does not block: an error that looks like the process limit's and is none
# verdict: RAISED

import os

os.set_blocking(1, False)
while True:
    os.write(1, bytes(1 << 20))
