# tries: an exit in another thread, which ends that thread alone
# verdict: PASSED

import sys
import threading

thread = threading.Thread(target=sys.exit)
thread.start()
thread.join()
