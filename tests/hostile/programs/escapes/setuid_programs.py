# tries: runs programs that would run as root, and makes one
# verdict: PASSED

import os
import shutil
import subprocess

shutil.copy("/usr/bin/id", "hostile-id")
os.chmod("hostile-id", 0o6755)
said = subprocess.run(["./hostile-id", "-u"], capture_output=True, text=True).stdout
for command in (["su", "-c", "id"], ["mount", "-t", "tmpfs", "none", "/box"]):
    try:
        ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=5)
    except FileNotFoundError:
        continue
    said += f" {ended.returncode == 0}"
# --- tests ---
assert said.split()[0] == str(os.getuid())
assert "True" not in said
