# tries: writes to a full pipe that does not block: an error that looks like the process limit's and is none
# verdict: RAISED

# A pipe of its own: standard output is read while the program writes, and may never be full.
import os

_, pipe = os.pipe()
os.set_blocking(pipe, False)
while True:
    os.write(pipe, bytes(1 << 20))
