# tries: overwrites an object that the interpreter cannot do without
# verdict: CRASHED

import ctypes

ctypes.memset(id(None), 0, 16)
print(None)
