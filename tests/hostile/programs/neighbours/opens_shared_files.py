# tries: opens files of the library again and again, as any program does
# verdict: PASSED

import time
import wave

deadline = time.monotonic() + 0.8
while time.monotonic() < deadline:
    with open(wave.__file__, "rb") as file:
        file.read()
    time.sleep(0.01)
