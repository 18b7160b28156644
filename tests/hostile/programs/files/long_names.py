# tries: names and paths that are longer than allowed
# verdict: PASSED

import errno
import os


def error_of(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "made"


# --- tests ---
assert error_of("n" * 255) == "made"
assert error_of("n" * 256) == "ENAMETOOLONG"
assert error_of("n/" * 3000 + "n") == "ENAMETOOLONG"
assert len(os.listdir(".")) == 1
