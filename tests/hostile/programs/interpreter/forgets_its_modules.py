# tries: empties the table of modules before its tests
# verdict: PASSED

import sys

sys.modules.clear()
