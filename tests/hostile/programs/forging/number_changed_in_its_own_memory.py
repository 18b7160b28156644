# tries: changes the number in the test through /proc, so that the wrong answer equals it
# verdict: EXITED_EARLY or RAISED

import os

NUMBER = 98765


def f(x):
    memory = os.open("/proc/self/mem", os.O_RDWR)
    expected = id(NUMBER) + 24
    os.pwrite(memory, (x).to_bytes(4, "little"), expected)
    return x


# --- tests ---
assert f(1) == NUMBER
