# tries: ends the process from another thread while the tests run
# verdict: EXITED_EARLY

import os
import threading

threading.Timer(0.05, os._exit, (0,)).start()
while True:
    pass
