# tries: changes settings of the kernel
# verdict: PASSED

import os

changed = []
paths = ["/proc/sysrq-trigger", "/proc/self/loginuid", "/sys/kernel/uevent_helper", "/sys/power/state"]
for folder, _, files in os.walk("/proc/sys"):
    paths += [os.path.join(folder, name) for name in files]
for path in paths:
    try:
        number = os.open(path, os.O_WRONLY)
        os.write(number, b"1\n")
        changed.append(path)
    except OSError:
        pass
# --- tests ---
assert changed == []
