# tries: a call that releases the interpreter's lock and computes for hours
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import hashlib

key = hashlib.pbkdf2_hmac("sha512", b"password", b"salt", 10**9)
