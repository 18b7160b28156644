# tries: nothing; input and output that are compared
# verdict: PASSED
# stdin: b"1 2 3\n"
# expected: "6\n"

print(sum(map(int, input().split())))
