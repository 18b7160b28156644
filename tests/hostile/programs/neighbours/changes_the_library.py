# tries: changes modules, builtins and cached objects that the next program begins with
# verdict: COMPLETED
# tests: none

import builtins
import ctypes
import json
import math
import sys

builtins.len = lambda things: 0
math.pi = 3
json.dumps = lambda *things: "hostile"
sys.modules["hostile"] = sys
sys.path.insert(0, "/tmp")
sys.setrecursionlimit(77)
ctypes.c_int.from_address(id(7) + 24).value = 8
