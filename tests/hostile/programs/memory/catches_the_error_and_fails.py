# tries: catches MemoryError and returns a wrong value: a limit that it survived is not what ended it
# verdict: FAILED_ASSERTION
# limits: memory_bytes=67108864


def f():
    try:
        return len(bytearray(1 << 30))
    except MemoryError:
        return 0


# --- tests ---
assert f() == 1 << 30
