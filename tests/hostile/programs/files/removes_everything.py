# tries: removes and locks whatever it may
# verdict: PASSED

import os
import shutil

for folder in ("/box", "/tmp", "/dev", "/opt/codealign/site", "/var", "/etc", "/usr/bin"):
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.chmod(folder, 0)
    except OSError:
        pass
# --- tests ---
assert os.path.exists("/usr/bin/env")
assert os.path.exists("/dev/null")
