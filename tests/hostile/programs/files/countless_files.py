# tries: makes empty files, which take no space on its disk, without end
# verdict: TIMED_OUT or DISK_LIMIT
# limits: wall_seconds=0.6

number = 0
while True:
    number += 1
    with open(f"file-{number}", "w"):
        pass
