# tries: forks without end
# verdict: PROCESS_LIMIT

import os

while True:
    os.fork()
