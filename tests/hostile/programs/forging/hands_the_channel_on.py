# tries: becomes another interpreter that still has the channel
# verdict: EXITED_EARLY

import os
import sys

for number in range(3, 256):
    try:
        os.set_inheritable(number, True)
    except OSError:
        pass
code = """
import os
for number in range(3, 256):
    for text in (b"x" * 40, bytes(28), b"\\1" * 28):
        try:
            os.write(number, text)
        except OSError:
            pass
"""
os.execv(sys.executable, ["python", "-c", code])
