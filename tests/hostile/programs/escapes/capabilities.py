# tries: takes the capabilities back that were dropped
# verdict: COMPLETED
# tests: none

import ctypes
import struct

libc = ctypes.CDLL(None, use_errno=True)
header, everything = struct.pack("Ii", 0x20080522, 0), struct.pack("IIIIII", *[0xFFFFFFFF] * 6)
taken = libc.capset(header, everything)
ambient = libc.prctl(47, 2, 21, 0, 0)
privileges = libc.prctl(38, 0, 0, 0, 0)
held = ctypes.create_string_buffer(24)
libc.capget(header, held)
assert (taken, ambient, privileges) == (-1, -1, -1)
assert held.raw == bytes(24)
