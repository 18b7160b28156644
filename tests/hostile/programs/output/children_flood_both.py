# tries: floods both streams from children, each of them below the limit
# verdict: OUTPUT_LIMIT
# limits: output_kill_bytes=1048576

import os
import time

for stream in (1, 2, 1, 2):
    if os.fork() == 0:
        for _ in range(80):
            os.write(stream, b"x" * 4096)
        os._exit(0)
time.sleep(5)
