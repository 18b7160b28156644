# tries: ends without the interpreter's own end
# verdict: EXITED_EARLY

import os

os._exit(0)
