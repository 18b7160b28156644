# tries: closes the standard streams, so that nothing can be told there
# verdict: RAISED

import os

for stream in (0, 1, 2):
    os.close(stream)
raise ValueError("who hears this?")
