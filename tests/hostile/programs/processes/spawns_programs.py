# tries: starts other programs without end
# verdict: PROCESS_LIMIT

import os

while True:
    os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
