# tries: forks, ends, and lets the child run the tests
# verdict: EXITED_EARLY

import os

if os.fork():
    os._exit(0)
