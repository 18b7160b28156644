# tries: leaves timers and alarms that would ring in the next program
# verdict: PASSED

import faulthandler
import signal

faulthandler.dump_traceback_later(0.2, exit=True)
signal.setitimer(signal.ITIMER_REAL, 0.3)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.1)
signal.setitimer(signal.ITIMER_PROF, 0.1)
