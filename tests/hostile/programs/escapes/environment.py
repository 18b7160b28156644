# tries: looks for secrets and for the host's paths in environments and command lines
# verdict: PASSED

import os

text = " ".join(f"{name}={value}" for name, value in os.environ.items())
for name in os.listdir("/proc"):
    for file in ("environ", "cmdline"):
        try:
            with open(f"/proc/{name}/{file}", "rb") as stream:
                text += stream.read().decode("utf-8", "replace")
        except OSError:
            pass
# --- tests ---
assert not any(word in text.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "SSH_", "/ROOT/"))
