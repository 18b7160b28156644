# tries: empties the builtins before its tests, and leaves the program to do without
# verdict: PASSED

import builtins

vars(builtins).clear()
