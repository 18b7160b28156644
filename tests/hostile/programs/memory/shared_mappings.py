# tries: mappings that are shared between processes, each filled by another child
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=67108864

import mmap
import os
import time

for _ in range(6):
    if os.fork() == 0:
        area = mmap.mmap(-1, 32 << 20)
        for _ in range(32):
            area.write(b"x" * (1 << 20))
        time.sleep(9)
time.sleep(9)
