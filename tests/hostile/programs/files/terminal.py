# tries: looks for a terminal, and pushes input into whatever it finds
# verdict: PASSED

import fcntl
import os
import termios

found = []
for path in ("/dev/tty", "/dev/console", "/dev/stdin", "/dev/stdout", "/dev/stderr"):
    try:
        number = os.open(path, os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(number, termios.TIOCSTI, b"x")
        found.append(path)
    except OSError:
        pass
# --- tests ---
assert found == []
assert not any(os.isatty(number) for number in range(256))
