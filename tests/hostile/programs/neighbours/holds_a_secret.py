# tries: keeps a secret in files, in memory and in its arguments while another program runs
# verdict: PASSED

import os
import time

secret = "hostile-secret-" * 1000
for folder in (".", "/tmp", "/dev/shm"):
    with open(f"{folder}/hostile-secret", "w") as file:
        file.write(secret)
if os.fork() == 0:
    os.execv("/bin/sleep", ["hostile-secret", "0.8"])
time.sleep(0.8)
