# tries: imports the runner's own modules and has them send reports
# verdict: EXITED_EARLY

import os
import sys

sys.path.insert(0, "/opt/codealign/site")
try:
    from codealign.runner import instrument, witness

    for number in range(3, 256):
        for kind in instrument.Kind:
            try:
                witness.send_plain(number, bytes(32), kind, 1, b"")
            except OSError:
                pass
except Exception:
    pass
os._exit(0)
