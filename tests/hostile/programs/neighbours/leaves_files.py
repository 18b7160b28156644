# tries: leaves files for the next program wherever it can
# verdict: PASSED

import os

for folder in (".", "/tmp", "/dev/shm", "/box", "/var/tmp"):
    for name in ("hostile-left", ".hostile-left"):
        try:
            with open(os.path.join(folder, name), "w") as file:
                file.write("secret")
            os.chmod(os.path.join(folder, name), 0o777)
        except OSError:
            pass
