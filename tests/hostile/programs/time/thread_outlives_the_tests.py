# tries: leaves a thread that the end of the program has to wait for
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import threading
import time

threading.Thread(target=time.sleep, args=(60,)).start()
