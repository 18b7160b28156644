# tries: reads /dev/zero to its end
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=67108864

with open("/dev/zero", "rb") as file:
    zeros = file.read()
