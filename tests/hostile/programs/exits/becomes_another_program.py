# tries: becomes a program that succeeds
# verdict: EXITED_EARLY

import os

os.execv("/bin/true", ["true"])
