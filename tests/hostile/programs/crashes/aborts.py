# tries: aborts in the middle of the code
# verdict: CRASHED

import os

os.abort()
