# tries: starts threads without end
# verdict: PROCESS_LIMIT

import threading
import time

while True:
    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
