# tries: writes more than its disk holds, in many files of the temporary folder
# verdict: DISK_LIMIT
# limits: disk_bytes=4194304

for number in range(64):
    with open(f"/tmp/hostile-{number}", "wb") as file:
        file.write(bytes(1 << 18))
