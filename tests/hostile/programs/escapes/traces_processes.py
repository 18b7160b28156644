# tries: traces its parent, process 1 and its own child; reads and writes their memory
# verdict: COMPLETED
# tests: none

import ctypes
import os
import time

libc = ctypes.CDLL(None, use_errno=True)
child = os.fork()
if child == 0:
    time.sleep(60)
block = ctypes.create_string_buffer(64)


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


here = Vector(ctypes.addressof(block), 64)
results = [libc.ptrace(0, 0, None, None)]
for pid in (1, child, os.getppid()):
    results += [libc.ptrace(16, pid, None, None), libc.ptrace(0x4206, pid, None, None)]
    for call in (libc.process_vm_readv, libc.process_vm_writev):
        results.append(call(pid, ctypes.byref(here), 1, ctypes.byref(here), 1, 0))
assert set(results) == {-1}, results
