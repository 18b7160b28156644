# tries: lets faulthandler end the process while the tests wait
# verdict: EXITED_EARLY

import faulthandler
import time

faulthandler.dump_traceback_later(0.05, exit=True)
# --- tests ---
time.sleep(5)
assert True
