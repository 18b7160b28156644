# tries: attributes of files, which count neither as memory nor as disk
# verdict: COMPLETED
# tests: none

import os

open("file", "w").close()
held = 0
try:
    for number in range(2000):
        os.setxattr("file", f"user.{number}", bytes(1 << 16))
        held += 1 << 16
except PermissionError:
    pass
assert held == 0
