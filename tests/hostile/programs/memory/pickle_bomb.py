# tries: 30 bytes of pickle that unpack to a terabyte
# verdict: OUT_OF_MEMORY

import pickle

block = pickle.loads(b"cbuiltins\nbytearray\n(I1000000000000\ntR.")
