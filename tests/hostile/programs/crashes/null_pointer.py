# tries: reads where nothing is
# verdict: CRASHED

import ctypes

ctypes.string_at(0)
