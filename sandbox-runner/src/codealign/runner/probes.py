"""The programs with which a runner tries to break out of itself, as text: they run like any other program."""

PLANT = """
import os, time
for folder in (".", "/tmp", "/dev/shm"):
    with open(os.path.join(folder, {token!r}), "w") as file:
        file.write("secret")
print("planted", flush=True)
time.sleep({seconds})
"""
"""Leaves a file wherever it can, and stays. Filled in with str.format."""

LOOK_AROUND = """
import ctypes, errno, json, os, signal, socket, sys
arguments = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
seen = {}

log = ctypes.create_string_buffer(1 << 16)
length = libc.klogctl(3, log, len(log) - 1)
seen["log"] = log.raw[:max(length, 0)].decode("utf-8", "replace").splitlines()[:1]
seen["release"] = os.uname().release

def attempt(family, address):
    with socket.socket(family) as client:
        client.settimeout(1)
        try:
            client.connect(address)
        except OSError as error:
            return errno.errorcode.get(error.errno, type(error).__name__)
        return "CONNECTED"

seen["network"] = {f"{host}:{port}": attempt(socket.AF_INET, (host, port)) for host, port in arguments["outside"]}
seen["loopback"] = {
    "tcp": attempt(socket.AF_INET, ("127.0.0.1", arguments["port"])),
    "unix": attempt(socket.AF_UNIX, chr(0) + arguments["unix"]),
}

def may_signal(pid):
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True

seen["pid"] = os.getpid()
seen["pids"] = [int(name) for name in os.listdir("/proc") if name.isdigit()]
seen["signalled"] = [pid for pid in range(2, 300) if may_signal(pid)]

def may_write(folder):
    path = os.path.join(folder, "probe")
    try:
        with open(path, "w"):
            pass
        os.unlink(path)
    except OSError:
        return False
    return True

found = []
for top in ("/box", "/tmp/", "/dev", "/opt", "/var", "/run", "/mnt"):
    for folder, _, files in os.walk(top):
        found += [os.path.join(folder, name) for name in files if name == arguments["token"]]
seen["found"] = found
seen["visible"] = [path for path in arguments["hidden"] if os.path.lexists(path)]
seen["writable"] = [folder for folder in arguments["read_only"] if may_write(folder)]

status = {}
with open("/proc/self/status") as file:
    for line in file:
        name, _, value = line.partition(":")
        status[name] = value.strip()
seen["capabilities"] = {name: status.get(name) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") if name in status}
seen["no_new_privs"] = libc.prctl(39, 0, 0, 0, 0)
seen["uid"] = os.getuid()
seen["denied"] = {
    "mount": libc.mount(b"tmpfs", b"/box", b"tmpfs", 0, None),
    "umount": libc.umount2(b"/proc", 2),
    "unshare": libc.unshare(0x10000000),
    "chroot": libc.chroot(b"/box"),
    "setuid": libc.setuid(0),
    "ptrace": libc.ptrace(16, 2, None, None),
}
seen["descriptors"] = sorted(int(name) for name in os.listdir("/proc/self/fd"))
json.dump(seen, sys.stdout)
"""

ONE_LARGE_BLOCK = """
block = bytearray(1 << 40)
"""

MANY_SMALL_BLOCKS = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        block = bytearray(b"x") * (24 << 20)
        time.sleep(30)
        os._exit(0)
time.sleep(30)
"""

FORKS = """
import os, time
started = 0
try:
    while started < 500:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        started += 1
except OSError as error:
    print(started, error.errno)
"""

FILL_DISK = """
for number in range(16):
    with open(f"file{number}", "wb") as file:
        file.write(bytes(1 << 20))
"""

DAEMON = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
while True:
    time.sleep(1)
"""
