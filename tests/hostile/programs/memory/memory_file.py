# tries: a file in memory, which no process limit counts
# verdict: RAISED

import os

number = os.memfd_create("hostile")
while True:
    os.write(number, bytes(1 << 20))
