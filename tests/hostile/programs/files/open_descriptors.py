# tries: opens files until there is no descriptor left
# verdict: RAISED

import os

while True:
    os.open("/dev/null", os.O_RDONLY)
