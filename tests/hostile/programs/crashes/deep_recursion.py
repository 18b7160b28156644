# tries: recursion without an end
# verdict: RAISED


def deeper(n):
    return deeper(n + 1)


deeper(0)
