# tries: ends as a program that succeeded, before its tests
# verdict: EXITED_EARLY

import sys

sys.exit(0)
