# tries: needs a process, a thread, files and a moment of time beside a program that takes all it can get
# verdict: PASSED
# beside: neighbours/takes_all_it_can_get

import subprocess
import threading

thread = threading.Thread(target=print)
thread.start()
thread.join()
with open("file", "wb") as file:
    file.write(bytes(1 << 20))
said = subprocess.run(["/bin/echo", "hello"], capture_output=True).stdout
total = sum(range(1_000_000))
# --- tests ---
assert said == b"hello\n"
assert total == 499999500000
