# tries: nothing; output that differs
# verdict: FAILED_ASSERTION
# stdin: b"1 2 3\n"
# expected: "7\n"

print(sum(map(int, input().split())))
