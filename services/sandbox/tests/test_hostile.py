"""Programs that mean harm: each gets its verdict, and the next program does not notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc
import pytest

from .conftest import Gateway, name_of, request

pytestmark = pytest.mark.gvisor

MIB = 1024 * 1024

LIMITS = [
    ("while True: pass", "TIMED_OUT", {"wall_seconds": 0.5}),
    ("import time; time.sleep(60)", "TIMED_OUT", {"wall_seconds": 0.3}),
    ("while True:\n try:\n  while True: pass\n except BaseException: pass", "TIMED_OUT", {"cpu_seconds": 1}),
    ("import os\nfor _ in range(3): os.fork()\nwhile True: pass", "TIMED_OUT", {"cpu_seconds": 1}),
    ("import os\nwhile True: os.fork()", "PROCESS_LIMIT", {}),
    (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "PROCESS_LIMIT",
        {},
    ),
    ("x = bytearray(10 ** 12)", "OUT_OF_MEMORY", {}),
    ("x = []\nwhile True: x.append(bytearray(1 << 20))", "OUT_OF_MEMORY", {"memory_bytes": 64 * MIB}),
    (
        "import os, time\nfor _ in range(5):\n if os.fork() == 0:\n  x = bytearray(b'1') * (40 << 20); time.sleep(9)\n"
        "time.sleep(9)",
        "OUT_OF_MEMORY",
        {"memory_bytes": 96 * MIB},
    ),
    ("open('f', 'wb').write(bytes(80 << 20))", "DISK_LIMIT", {}),
    (
        "i = 0\nwhile True:\n i += 1\n open(f'/tmp/{i}', 'wb').write(bytes(1 << 20))",
        "DISK_LIMIT",
        {"disk_bytes": 4 * MIB},
    ),
    ("while True: print('x' * 65536)", "OUTPUT_LIMIT", {"output_kill_bytes": 1 * MIB}),
    ("import os\nos.abort()", "CRASHED", {}),
    ("import ctypes\nctypes.string_at(0)", "CRASHED", {}),
    ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "CRASHED", {}),
    ("import os, signal\nos.kill(0, signal.SIGTERM)", "CRASHED", {}),
    ("import socket\nsocket.create_connection(('1.1.1.1', 53), timeout=3)", "RAISED", {}),
    ("import urllib.request\nurllib.request.urlopen('http://example.com', timeout=3)", "RAISED", {}),
    (
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n def __repr__(self): return repr(self)\nrepr(A())",
        "CRASHED",
        {},
    ),
    ("def f(): return f()\nf()", "RAISED", {}),
]


@pytest.mark.parametrize(
    ("code", "verdict", "limits"), LIMITS, ids=lambda value: str(value)[:40] if isinstance(value, str) else ""
)
def test_every_limit_gives_its_verdict(sound: Gateway, code: str, verdict: str, limits: dict[str, float]) -> None:
    result = sound.run(code, "assert True", **limits)
    assert name_of(result) == verdict, result


FORGERIES = {
    "writes to every descriptor": """
import os
for fd in range(3, 256):
    for text in (b'PASSED', b'\\x03' + bytes(40), bytes(64)):
        try: os.write(fd, text)
        except OSError: pass
os._exit(0)
""",
    "raises the events itself": """
import os, sys
frame = sys._getframe()
while frame:
    for value in list(frame.f_locals.values()):
        if isinstance(value, str) and value.startswith('codealign'):
            for kind in range(7):
                sys.audit(value, kind, b'', 0)
    frame = frame.f_back
os._exit(0)
""",
    "calls the harness again": """
import os, sys
frame = sys._getframe()
while frame.f_code.co_name != '_run': frame = frame.f_back
good = compile('x = 1', '<tests>', 'exec')
run = frame.f_globals['_run']
run(frame.f_locals['event'], 1, good, good, {'__builtins__': __builtins__})
os._exit(0)
""",
    "looks for the key": """
import gc, os
for item in gc.get_objects():
    for held in gc.get_referents(item):
        if type(held) is bytes and len(held) == 32:
            for fd in range(3, 256):
                try:
                    import _blake2
                    message = bytes([3]) + bytes([2,0,0,0, 5,0,0,0, 0,0,0,0]) + bytes(1)
                    os.write(fd, message + _blake2.blake2b(message, key=held, digest_size=16).digest())
                except OSError: pass
os._exit(0)
""",
    "listens to the events with a hook of its own": """
import os, sys
def hook(name, args):
    frame = sys._getframe(1)
    while frame:
        for value in list(frame.f_locals.values()):
            if callable(value) and getattr(value, '__name__', '') == 'send':
                value(3, 0, b'')
                os._exit(0)
        frame = frame.f_back
sys.addaudithook(hook)
""",
    "closes every descriptor": "import os\nos.closerange(3, 256)\n",
    "replaces exec": "import builtins, os\nbuiltins.exec = lambda *a: None\nos._exit(0)",
    "exits at exit": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "exits from a thread": """
import os, threading
threading.Thread(target=os._exit, args=(0,)).start()
while True: pass
""",
    "forks and lets the child finish": "import os\nif os.fork(): os._exit(0)\n",
    "jumps over the tests": """
import sys
def trace(frame, event, arg):
    if frame.f_code.co_filename == '<tests>' and event == 'line' and frame.f_lineno == 2:
        frame.f_lineno = 3
    return trace
sys.settrace(trace)
""",
    "runs the tests elsewhere": """
import sys, os
class Yes:
    def __eq__(self, other): return True
class Lookup(dict):
    def __missing__(self, name): return lambda *a: Yes()
def f(x):
    frame = sys._getframe(1)
    exec(frame.f_code, Lookup())
    os._exit(0)
""",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_result_is_no_pass(sound: Gateway, name: str) -> None:
    tests = "assert True\nassert f(1) == 2\nx = 1\n"
    result = sound.run(FORGERIES[name] + "\n" + ("" if "def f" in FORGERIES[name] else "def f(x): return 0\n"), tests)
    assert name_of(result) in ("EXITED_EARLY", "FAILED_ASSERTION"), result


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)
    os._exit(0)
os.wait()
"""


def test_a_daemon_that_holds_the_pipes_delays_nothing(sound: Gateway) -> None:
    started = time.monotonic()
    assert name_of(sound.run(DAEMON, "assert True")) == "PASSED"
    assert time.monotonic() - started < 3


def test_a_daemon_dies_at_the_time_limit(sound: Gateway) -> None:
    result = sound.run(DAEMON + "time.sleep(300)", "assert True", wall_seconds=0.5)
    assert name_of(result) == "TIMED_OUT"
    assert result.wall_seconds < 3


def test_the_runners_loopback_and_processes_are_out_of_reach(sound: Gateway) -> None:
    code = """
import os, socket
open_ports = []
for port in range(1, 3000):
    with socket.socket() as client:
        if client.connect_ex(('127.0.0.1', port)) == 0: open_ports.append(port)
pids = [name for name in os.listdir('/proc') if name.isdigit()]
"""
    result = sound.run(code, "assert open_ports == []\nassert pids == ['1']")
    assert name_of(result) == "PASSED", result


def test_files_of_another_execution_are_out_of_sight(sound: Gateway) -> None:
    plant = "import time\nfor d in ('.', '/tmp', '/dev/shm'): open(d + '/secret', 'w').write('s')\ntime.sleep(1.5)"
    planter = threading.Thread(target=sound.run, args=(plant,))
    planter.start()
    time.sleep(0.5)
    look = "import os\ntops = ('/box', '/tmp', '/dev', '/opt')\n"
    look += "found = [f for top in tops for _, _, files in os.walk(top) for f in files if f == 'secret']"
    result = sound.run(look, "assert found == []")
    planter.join()
    assert name_of(result) == "PASSED", result
    assert name_of(sound.run(look, "assert found == []")) == "PASSED"


def test_a_cancelled_call_frees_its_slot(sound: Gateway) -> None:
    slots = sound.capacity().slots
    calls = [sound.stub.Execute.future(request("import time; time.sleep(50)", wall_seconds=55)) for _ in range(slots)]
    _until(lambda: sound.capacity().busy == slots)
    for call in calls:
        call.cancel()
    _until(lambda: sound.capacity().busy == 0)


def test_a_passed_deadline_frees_its_slot(sound: Gateway) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        sound.stub.Execute(request("import time; time.sleep(50)", wall_seconds=55), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    _until(lambda: sound.capacity().busy == 0)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_new_user_namespace_and_unlimited_memory_files_are_denied(sound: Gateway) -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
unshared = libc.unshare(0x10000000)
cloned = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
mounted = libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)
try:
    os.memfd_create('m')
    memory_file = True
except OSError:
    memory_file = False
"""
    result = sound.run(code, "assert (unshared, cloned, mounted) == (-1, -1, -1)\nassert not memory_file")
    assert name_of(result) == "PASSED", result
