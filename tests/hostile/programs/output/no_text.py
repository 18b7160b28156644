# tries: writes what is no UTF-8, null bytes and a terminal's control sequences
# verdict: PASSED

import os

os.write(1, bytes(range(256)) + b"\x1b[2J\x1b]0;hostile\x07\xff\xfe\xed\xa0\x80")
os.write(2, b"\0" * 100 + b"\xc3\x28\xf0\x90")
