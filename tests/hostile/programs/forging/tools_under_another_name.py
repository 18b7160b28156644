# tries: loads the extension behind ctypes under another name, and writes over the bytecode of the tests with it
# verdict: EXITED_EARLY

import importlib.util
import os
import sys


def f(x):
    if x == 3:
        change(sys._getframe(1).f_code)
    return 0


def change(code):
    folder = next(path for path in sys.path if path.endswith("lib-dynload"))
    name = next(name for name in os.listdir(folder) if name.startswith("_ctypes."))
    spec = importlib.util.spec_from_file_location("hostile._ctypes", os.path.join(folder, name))
    sys.modules["_ctypes"] = importlib.util.module_from_spec(spec)
    import ctypes

    place = type(code).__basicsize__  # the bytecode follows the fields
    end = bytes([100, code.co_consts.index(None), 83, 0])
    ctypes.memmove(id(code) + place, end * (len(code.co_code) // 4), len(code.co_code) // 4 * 4)


# --- tests ---
assert f(0) == 0
assert f(3) == 0
assert f(1) == 2
