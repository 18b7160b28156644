# tries: a file of a terabyte that holds nothing
# verdict: DISK_LIMIT

with open("sparse", "wb") as file:
    file.truncate(1 << 40)
