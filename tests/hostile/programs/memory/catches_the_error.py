# tries: catches MemoryError and asks again
# verdict: TIMED_OUT
# limits: memory_bytes=67108864 wall_seconds=0.5

held = []
while True:
    try:
        held.append(bytearray(1 << 20))
    except MemoryError:
        pass
