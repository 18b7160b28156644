# tries: leaves no descriptor for whoever reports how it ended
# verdict: PASSED

import os

try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
