# tries: fills the table of processes with dead children that it never waits for
# verdict: PROCESS_LIMIT

import os

while True:
    if os.fork() == 0:
        os._exit(0)
