# tries: mounts a disk without a size, and uncovers what its own mounts hide
# verdict: COMPLETED
# tests: none

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
results = [
    libc.mount(b"tmpfs", b"/box/work", b"tmpfs", 0, None),
    libc.mount(b"proc", b"/proc", b"proc", 0, None),
    libc.mount(b"/", b"/box/work", None, 4096, None),
    libc.mount(None, b"/box", None, 32, b"size=100G"),
    libc.umount2(b"/tmp", 2),
    libc.umount2(b"/dev/shm", 2),
    libc.umount2(b"/proc", 2),
    libc.umount2(b"/box", 2),
    libc.syscall(155, b"/box", b"/box"),
    libc.chroot(b"/box"),
]
assert set(results) == {-1}, results
