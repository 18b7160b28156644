# tries: system calls that are an administrator's: modules, reboot, swap, clocks, quotas, i/o ports
# verdict: COMPLETED
# tests: none

import ctypes

NUMBERS = {
    "iopl": 172, "ioperm": 173, "create_module": 174, "init_module": 175, "finit_module": 313, "delete_module": 176,
    "reboot": 169, "kexec_load": 246, "swapon": 167, "swapoff": 168, "acct": 163, "settimeofday": 164,
    "sethostname": 170, "setdomainname": 171, "adjtimex": 159, "vhangup": 153, "quotactl": 179, "fanotify_init": 300,
    "perf_event_open": 298, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "keyctl": 250, "add_key": 248,
    "open_by_handle_at": 304, "lookup_dcookie": 212, "move_pages": 279, "kcmp": 312, "pidfd_getfd": 438,
}  # fmt: skip
libc = ctypes.CDLL(None, use_errno=True)
allowed = [name for name, number in NUMBERS.items() if libc.syscall(number, 1, b"hostile", 7, 0, 0, 0) != -1]
assert allowed == []
