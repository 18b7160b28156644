"""The fork server of one slot: a warm, single-threaded interpreter that forks a child for each execution.

Standard library only. Run as a script:

    python -S -s -P forkserver.py SITE CONTROL MODULE...

SITE is the folder of the `codealign` package (forgotten again before anything is forked), CONTROL the descriptor of
a packet socket to the supervisor. Messages on it are marshalled:

    supervisor → server   ("run", walls) with five descriptors: stdin, stdout, stderr, payload, channel
                          ("kill",)
    server → supervisor   ("ready", memory of the warm interpreter in bytes)
                          ("running", pid), of an execution that does not end at once
                          ("ended", wait status, CPU seconds, peak resident bytes)
"""

import builtins
import gc
import importlib
import marshal
import os
import random
import resource
import select
import signal
import socket
import sys

MESSAGE_LIMIT = 4096
DESCRIPTORS = 5
_SOON_MILLISECONDS = 30


def _interactive_names() -> None:
    """`exit`, `quit` and `help`, which the site module (not loaded here) usually provides."""
    import _sitebuiltins

    names = {name: _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)") for name in ("exit", "quit")}
    vars(builtins).update(names, help=_sitebuiltins._Helper())


def _warm_memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


class ForkServer:
    """Serves one slot: one execution at a time."""

    def __init__(self, control: socket.socket) -> None:
        from codealign.runner import harness, jail

        self._harness, self._jail_module = harness, jail
        self._jail = jail.Jail()
        self._control = control
        self._memory = _warm_memory()
        self._pid = 0
        self._unannounced = False
        self._wakeup, wakeup_end = socket.socketpair()
        self._wakeup_end = wakeup_end
        for end in (self._wakeup, wakeup_end):
            end.setblocking(False)
        # A handler must exist for the wakeup descriptor to be written to.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_end.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until the supervisor closes the control socket."""
        self._send("ready", self._memory)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            events = poll.poll(_SOON_MILLISECONDS if self._unannounced else None)
            if not events:
                # Most programs have ended by now, and a message costs the supervisor a look at it.
                self._unannounced = False
                self._send("running", self._pid)
            for descriptor, _ in events:
                if descriptor == self._wakeup.fileno():
                    self._wakeup.recv(64)
                elif not self._command():
                    return
            self._reap()

    def _send(self, *message: str | int | float) -> None:
        self._control.send(marshal.dumps(message))

    def _command(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_LIMIT, DESCRIPTORS)
        if not data:
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)
            return False
        message = marshal.loads(data)
        if message[0] == "kill":
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)
        elif message[0] == "run":
            self._run(message[1], descriptors)
        return True

    def _run(self, walls: tuple[int, int, int, int], descriptors: list[int]) -> None:
        pid = self._jail.fork()
        if pid == 0:
            self._child(walls, descriptors)
        self._pid = pid
        self._unannounced = True
        for descriptor in descriptors:
            os.close(descriptor)

    def _reap(self) -> None:
        if not self._pid:
            return
        pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        if pid:
            self._pid = 0
            self._unannounced = False
            self._send("ended", status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def _child(self, walls: tuple[int, int, int, int], descriptors: list[int]) -> None:
        """Never returns."""
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            payload, channel = self._arrange(descriptors)
            cpu, memory, processes, disk = walls
            # The warm interpreter is not the program's doing.
            self._jail.enter(self._jail_module.Walls(cpu, self._memory + memory, processes, disk))
            del self._control, self._wakeup, self._wakeup_end, self._jail
            status = self._harness.main(payload, channel)
        except BaseException as error:
            os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)

    def _arrange(self, descriptors: list[int]) -> tuple[int, int]:
        """Descriptors 0 to 2, the payload at 3, and the channel at a random place; all others are closed."""
        *standard, payload, channel = descriptors
        for end in (self._control, self._wakeup, self._wakeup_end):
            os.close(end.detach())
        for target, descriptor in enumerate(standard):
            os.dup2(descriptor, target)
        place = 128 + int.from_bytes(os.urandom(1), "big") % 100
        os.dup2(channel, place, inheritable=False)
        kept = os.dup(payload) if payload != 3 else 3
        os.closerange(3, kept)
        os.closerange(kept + 1, place)
        os.closerange(place + 1, 256)
        return kept, place


def _main(arguments: list[str]) -> None:
    site, control, *modules = arguments
    sys.path.insert(0, site)
    from codealign.runner import forkserver

    for name in modules:
        importlib.import_module(name)
    _interactive_names()
    server = forkserver.ForkServer(socket.socket(fileno=int(control)))
    # A program must not import the runner, nor see how it was started.
    sys.path.remove(site)
    for name in [name for name in sys.modules if name.partition(".")[0] == "codealign"]:
        del sys.modules[name]
    sys.argv[:] = [""]
    random.seed()
    gc.collect()
    # What is here now stays: the collector then does not touch, and so copy, its pages in every child.
    gc.freeze()
    server.serve()


if __name__ == "__main__":
    _main(sys.argv[1:])
