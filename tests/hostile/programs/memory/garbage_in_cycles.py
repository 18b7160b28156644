# tries: switches the collector off and makes garbage that only it could free
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=67108864

import gc

gc.disable()
while True:
    cycle = [bytearray(1 << 16)]
    cycle.append(cycle)
