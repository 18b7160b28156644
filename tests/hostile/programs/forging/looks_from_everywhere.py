# tries: waits in signal handlers, threads, callbacks and hooks for a frame of the harness, to call what it holds
# verdict: EXITED_EARLY

import gc
import os
import signal
import sys
import threading
import time


def look(*arguments):
    frames = [frame for frame in sys._current_frames().values()]
    while frames:
        frame = frames.pop()
        if frame.f_back:
            frames.append(frame.f_back)
        if "codealign" in frame.f_code.co_filename:
            for value in list(frame.f_locals.values()):
                for arguments in ((3, 0, b""), (1, 0, b""), (True,)):
                    try:
                        value(*arguments)
                    except BaseException:
                        pass


def always():
    while True:
        look()


try:
    sys.addaudithook(look)
except RuntimeError:
    pass
gc.callbacks.append(look)
signal.signal(signal.SIGALRM, look)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
sys.setswitchinterval(1e-6)
threading.Thread(target=always, daemon=True).start()
deadline = time.monotonic() + 0.2
while time.monotonic() < deadline:
    sys.audit("hostile")
    gc.collect(0)
os._exit(0)
