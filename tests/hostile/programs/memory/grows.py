# tries: asks for a little memory again and again
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=67108864

held = []
while True:
    held.append(bytearray(1 << 20))
