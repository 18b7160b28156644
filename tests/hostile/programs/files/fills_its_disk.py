# tries: writes more than its disk holds, in one file
# verdict: DISK_LIMIT

with open("large", "wb") as file:
    while True:
        file.write(bytes(1 << 20))
