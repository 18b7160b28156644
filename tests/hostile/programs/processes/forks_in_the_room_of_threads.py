# tries: asks for the room of a hundred threads that never start, and fills it with processes
# verdict: PROCESS_LIMIT

import _thread
import os
import resource
import time

for _ in range(200):
    try:
        _thread.start_new_thread(1, ())
    except TypeError:
        pass
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
for _ in range(100):
    if os.fork() == 0:
        time.sleep(9)
        os._exit(0)
time.sleep(9)
