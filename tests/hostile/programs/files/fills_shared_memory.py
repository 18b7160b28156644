# tries: writes more than its disk holds, in /dev/shm
# verdict: DISK_LIMIT
# limits: disk_bytes=4194304

with open("/dev/shm/hostile", "wb") as file:
    while True:
        file.write(bytes(1 << 16))
