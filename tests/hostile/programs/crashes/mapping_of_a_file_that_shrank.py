# tries: reads a mapping whose file is gone
# verdict: CRASHED

import mmap

with open("file", "w+b") as file:
    file.truncate(1 << 16)
    area = mmap.mmap(file.fileno(), 1 << 16)
    file.truncate(0)
byte = area[1 << 15]
