# tries: makes nodes of the machine's devices, and opens those that are there
# verdict: COMPLETED
# tests: none

import os
import stat

opened = []
for kind, major, minor in ((stat.S_IFCHR, 1, 1), (stat.S_IFBLK, 8, 0), (stat.S_IFCHR, 10, 229), (stat.S_IFBLK, 254, 0)):
    try:
        os.mknod("node", kind | 0o600, os.makedev(major, minor))
        os.open("node", os.O_RDONLY)
        opened.append((major, minor))
    except OSError:
        pass
for path in ("/dev/sda", "/dev/vda", "/dev/mem", "/dev/kvm", "/dev/kmsg", "/dev/port", "/dev/loop0", "/dev/nvidia0"):
    try:
        os.open(path, os.O_RDONLY)
        opened.append(path)
    except OSError:
        pass
assert opened == []
