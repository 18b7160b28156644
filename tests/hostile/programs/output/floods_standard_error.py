# tries: writes binary data to standard error without end, past Python's buffers
# verdict: OUTPUT_LIMIT
# limits: output_kill_bytes=1048576

import os

block = bytes(range(256)) * 64
while True:
    os.write(2, block)
