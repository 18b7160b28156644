# tries: catches that its disk is full, and goes on
# verdict: PASSED
# limits: disk_bytes=1048576

full = False
try:
    with open("large", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
except OSError:
    full = True
# --- tests ---
assert full
