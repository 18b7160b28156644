# tries: writes without end
# verdict: OUTPUT_LIMIT
# limits: output_kill_bytes=1048576

while True:
    print("x" * 65536)
