# tries: leaves semaphores, message queues and shared memory, which live on without a process
# verdict: COMPLETED
# tests: none

import _multiprocessing
import ctypes

libc = ctypes.CDLL(None, use_errno=True)
libc.semget(4711, 1, 0o1666)
queue = libc.msgget(4711, 0o1666)
libc.msgsnd(queue, ctypes.c_char_p(b"\1\0\0\0\0\0\0\0secret"), 6, 0o4000)
libc.shmget(4711, ctypes.c_size_t(4096), 0o1666)
libc.mq_open(b"/hostile", 0o102, 0o666, None)
_multiprocessing.SemLock(0, 0, 1, "/hostile", False)
