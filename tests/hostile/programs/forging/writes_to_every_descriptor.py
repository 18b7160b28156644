# tries: writes what a report might look like to every descriptor
# verdict: EXITED_EARLY

import os

for number in range(3, 1024):
    for text in (b"PASSED", b"\x03" + bytes(40), bytes(64), b'{"verdict": "PASSED"}\n'):
        try:
            os.write(number, text)
        except OSError:
            pass
os._exit(0)
