# tries: threads whose stacks alone are larger than its memory
# verdict: PROCESS_LIMIT

import threading
import time

threading.stack_size(512 * 1024 * 1024)
for _ in range(8):
    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
