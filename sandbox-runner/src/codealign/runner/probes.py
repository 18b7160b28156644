"""Source text of the probes with which a runner tests its isolation. They run like any other program.

Probes exchange values as Python literals instead of JSON. This avoids importing a module that only one of a slot's
fork servers has loaded, so that each fork server can be tested.
"""

from __future__ import annotations

PLANT = """
import ast, ctypes, os, socket, sys, time
arguments = ast.literal_eval(sys.stdin.read())
token, key = arguments["token"], arguments["key"]
libc = ctypes.CDLL(None, use_errno=True)
planted = []
for folder in (".", "/tmp", "/dev/shm"):
    with open(os.path.join(folder, token), "w") as file:
        file.write("secret")
    planted.append(folder)
if libc.msgget(key, 0o1666) >= 0:
    planted.append("message queue")
if libc.semget(key, 1, 0o1666) >= 0:
    planted.append("semaphore")
if libc.shmget(key, 4096, 0o1666) >= 0:
    planted.append("shared memory")
try:
    if libc.mq_open(b"/" + token.encode(), os.O_CREAT | os.O_RDWR, 0o666, None) >= 0:
        planted.append("POSIX queue")
except AttributeError:
    pass
listener = socket.socket(socket.AF_UNIX)
listener.bind(chr(0) + token)
listener.listen()
planted.append("socket")
print(planted, flush=True)
time.sleep(arguments["seconds"])
"""
"""Leaves every kind of object that another execution might find, lists them, and keeps running for a while."""

LOOK_AROUND = """
import ast, ctypes, errno, os, signal, socket, sys
arguments = ast.literal_eval(sys.stdin.read())
libc = ctypes.CDLL(None, use_errno=True)
seen = {}

log = ctypes.create_string_buffer(1 << 16)
length = libc.klogctl(3, log, len(log) - 1)
seen["log"] = log.raw[:max(length, 0)].decode("utf-8", "replace").splitlines()[:1]
seen["release"] = os.uname().release

def name(number):
    return errno.errorcode.get(number, str(number))

def connect(family, address):
    try:
        with socket.socket(family) as client:
            client.settimeout(1)
            client.connect(address)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return "CONNECTED"

seen["network"] = {f"{host}:{port}": connect(socket.AF_INET, (host, port)) for host, port in arguments["outside"]}
seen["loopback"] = {
    "tcp": connect(socket.AF_INET, ("127.0.0.1", arguments["port"])),
    "unix": connect(socket.AF_UNIX, chr(0) + arguments["unix"]),
}

def call(function, *values):
    try:
        result = getattr(libc, function)(*values)
    except AttributeError:
        return "absent"
    return "FOUND" if result >= 0 else name(ctypes.get_errno())

seen["ipc"] = {}
for whose, key, word in (("runner", arguments["runner_key"], ""), ("execution", arguments["key"], arguments["token"])):
    seen["ipc"][f"message queue of the {whose}"] = call("msgget", key, 0)
    seen["ipc"][f"semaphore of the {whose}"] = call("semget", key, 0, 0)
    seen["ipc"][f"shared memory of the {whose}"] = call("shmget", key, 0, 0)
    if word:
        seen["ipc"][f"POSIX queue of the {whose}"] = call("mq_open", b"/" + word.encode(), os.O_RDWR)
        found = connect(socket.AF_UNIX, chr(0) + word)
        seen["ipc"][f"socket of the {whose}"] = "FOUND" if found == "CONNECTED" else found

def may_signal(pid):
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True

seen["pid"] = os.getpid()
seen["pids"] = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
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
for top in ("/box", "/tmp/", "/dev", "/opt", "/var", "/run", "/mnt", "/home", "/srv", "/root"):
    for folder, _, files in os.walk(top):
        found += [os.path.join(folder, entry) for entry in files if entry == arguments["token"]]
seen["found"] = found
seen["visible"] = [path for path in arguments["hidden"] if os.path.lexists(path)]
with open("/proc/self/mountinfo") as file:
    mounts = {line.split()[4] for line in file}
own = {"/box", "/tmp", "/dev/shm"}
seen["writable"] = sorted(folder for folder in {*arguments["read_only"], *mounts} - own if may_write(folder))

def may_change(path):
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            os.write(descriptor, os.read(descriptor, 4096))
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True

def may_read(path):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True

settings = [os.path.join(folder, entry)
            for top in ("/proc/sys", "/sys") for folder, _, files in os.walk(top) for entry in files]
seen["settings"] = len(settings)
seen["open_settings"] = [path for path in settings if may_change(path)][:20]
seen["open_devices"] = [path for path in arguments["devices"] if may_read(path)]

status = {}
with open("/proc/self/status") as file:
    for line in file:
        key, _, value = line.partition(":")
        status[key] = value.strip()
seen["capabilities"] = {key: status.get(key) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb") if key in status}
seen["no_new_privs"] = libc.prctl(39, 0, 0, 0, 0)
seen["uid"] = os.getuid()

seen["descriptors"] = sorted(int(entry) for entry in os.listdir("/proc/self/fd"))
seen["environment"] = sorted(os.environ)

# Last: where one of these succeeds, nothing is as it was.
def may_have(family, kind, protocol=0):
    try:
        socket.socket(family, kind, protocol).close()
    except OSError:
        return -1
    return 0

def may_make_device():
    # The node alone is nothing, and gVisor has nothing behind most: memory, the kernel's log, disks.
    for kind, major, minor in ((0o020666, 1, 1), (0o020666, 1, 11), (0o060666, 8, 0), (0o060666, 254, 0)):
        path = f"/box/work/device-{major}-{minor}"
        if libc.mknod(path.encode(), kind, major << 8 | minor) == 0 and may_read(path):
            return 0
    return -1

def may_clone(flags):
    pid = libc.syscall(arguments["clone"], flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return min(pid, 0)

seen["denied"] = {
    "mount": libc.mount(b"tmpfs", b"/box", b"tmpfs", 0, None),
    "umount": libc.umount2(b"/proc", 2),
    "unshare": libc.unshare(0x10000000),
    "clone": may_clone(0x10000000),
    "chroot": libc.chroot(b"/box"),
    "pivot_root": libc.pivot_root(b"/box", b"/box"),
    "setuid": libc.setuid(0),
    "setgid": libc.setgid(0),
    "setgroups": libc.setgroups(0, None),
    "sethostname": libc.sethostname(b"probe", 5),
    "device": may_make_device(),
    "ptrace": libc.ptrace(0, 0, None, None),
    "raw socket": may_have(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet socket": may_have(getattr(socket, "AF_PACKET", 17), socket.SOCK_RAW),
}
print(seen)
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
import os
for number in range(24):
    folder = (".", "/tmp", "/dev/shm")[number % 3]
    with open(os.path.join(folder, f"file{number}"), "wb") as file:
        file.write(bytes(1 << 20))
"""

FLOOD = """
while True:
    print("x" * 65536)
"""

SPIN = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
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
