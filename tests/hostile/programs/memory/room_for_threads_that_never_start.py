# tries: asks for the room of a hundred threads that never start, and fills it with something else
# verdict: OUT_OF_MEMORY

import _thread
import resource

for _ in range(200):
    try:
        _thread.start_new_thread(1, ())
    except TypeError:
        pass
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
blocks = []
while True:
    blocks.append(bytearray(b"x") * (1 << 22))
