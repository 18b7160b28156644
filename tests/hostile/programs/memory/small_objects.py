# tries: fills its memory to the last byte with small objects, so that none is left to say so
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=67108864

held = []
while True:
    held.append([held])
