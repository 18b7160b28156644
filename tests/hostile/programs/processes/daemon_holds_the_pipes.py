# tries: a daemon that keeps the standard streams open after the program's end
# verdict: PASSED

import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)
    os._exit(0)
os.wait()
