# tries: reserves addresses until the kernel refuses; no MemoryError is raised by mmap, but OSError
# verdict: RAISED

import mmap

held = []
while True:
    held.append(mmap.mmap(-1, 64 << 20))
