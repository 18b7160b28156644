# tries: uses in five processes together what none may use alone
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=100663296

import os
import time

for _ in range(5):
    if os.fork() == 0:
        block = bytearray(b"1") * (40 << 20)
        time.sleep(9)
time.sleep(9)
