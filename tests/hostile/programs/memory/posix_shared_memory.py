# tries: a named segment of shared memory, larger than its disk
# verdict: DISK_LIMIT
# limits: disk_bytes=4194304

from multiprocessing import shared_memory

segment = shared_memory.SharedMemory("hostile", create=True, size=64 << 20)
for start in range(0, segment.size, 4096):
    segment.buf[start] = 1
