# tries: links in its folder that point out of it, followed with and without their names
# verdict: PASSED

import os

TARGETS = ("/root/.ssh", "/etc/shadow", "/proc/1/root/root", "../../../../../root", "/var/run/docker.sock")
seen = []
for number, target in enumerate(TARGETS):
    os.symlink(target, f"link-{number}")
    if os.path.exists(f"link-{number}"):
        seen.append(target)
os.symlink("/", "top")
seen += [name for name in os.listdir("top") if name in ("root", "home", "boot", "work", "mnt", "media", "srv")]
# --- tests ---
assert seen == []
