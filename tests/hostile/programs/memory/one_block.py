# tries: asks for more memory than the machine has
# verdict: OUT_OF_MEMORY

block = bytearray(10**12)
