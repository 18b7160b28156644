# tries: calls the kernel by numbers that a filter may have forgotten: the x32 table, and the 32-bit entry
# verdict: COMPLETED
# tests: none

import ctypes
import mmap
import os

libc = ctypes.CDLL(None, use_errno=True)
results = [libc.syscall(0x40000000 + number, 0, 0, 0, 0) for number in (39, 56, 101, 272, 319, 520)]
child = os.fork()
if child == 0:
    # mov eax, 20; int 0x80; ret: getpid of the 32-bit table
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    os._exit(7 if function() == os.getpid() else 0)
status = os.waitpid(child, 0)[1]
assert set(results) == {-1}, results
assert os.waitstatus_to_exitcode(status) != 7
