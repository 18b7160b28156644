"""One pod's part of a training: `python -m codealign.trainer.cluster.worker <job.json>`.

The pods gather before anything starts, and end together. Each keeps a connection to pod 0 for as long as it lives; pod
0 gives the sign when all are there, with the port at which torchrun meets. So torchrun waits for nobody, no pod that
was started anew meets what an earlier start left behind, and a pod that is lost is noticed at once, not when a
collective operation times out.

Exit status: 0 when the training has succeeded, 42 when the training program decided that it cannot go on (another pod
would end the same way), 1 for everything that another start may mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.trainer.cluster.pod_files import OwnDisk, PodFiles, say
from codealign.trainer.process import program_environment
from codealign.trainer.sft.__main__ import FOLLOW_PARENT, NODES
from codealign.trainer.sft.job import TrainingError
from codealign.trainer.sft.progress import Outcome

SUCCEEDED, LOST, CANNOT_GO_ON, TERMINATED = 0, 1, 42, 143
INDEX, PODS = "JOB_COMPLETION_INDEX", "CODEALIGN_WORKER_PODS"
FIRST_POD, PORT = "CODEALIGN_WORKER_FIRST_POD", "CODEALIGN_WORKER_PORT"
ARTIFACTS_URL, CACHE_DIR = "CODEALIGN_WORKER_ARTIFACTS_URL", "CODEALIGN_WORKER_CACHE_DIR"
DEFAULT_PORT = 29400

_CONNECT_SECONDS = 3.0
_OUTCOME_SECONDS = 15.0  # a network file system may show another pod's file so late
_SIOCGIFADDR = 0x8915  # <linux/sockios.h>


@dataclass(frozen=True)
class Place:
    """Which of the pods this is."""

    index: int = 0
    pods: int = 1
    first: str = "127.0.0.1"
    """Host of pod 0."""
    port: int = DEFAULT_PORT
    """Where pod 0 waits for the others."""


def place_of(environment: Mapping[str, str]) -> Place:
    """This pod's place, as the operator and the Job controller say it.

    Raises:
        ValueError: Names the variable.
    """
    numbers = {}
    for name, default in ((INDEX, "0"), (PODS, "1"), (PORT, str(DEFAULT_PORT))):
        text = environment.get(name, default)
        if not text.isdecimal():
            raise ValueError(f"{name} is {text!r}, not a number")
        numbers[name] = int(text)
    if numbers[INDEX] >= numbers[PODS]:
        raise ValueError(f"{INDEX} is {numbers[INDEX]}, and there are {PODS}={numbers[PODS]}")
    if numbers[PODS] > 1 and not environment.get(FIRST_POD):
        raise ValueError(f"{FIRST_POD} is not set: the DNS name of pod 0")
    return Place(numbers[INDEX], numbers[PODS], environment.get(FIRST_POD, "127.0.0.1"), numbers[PORT])


def files_of(environment: Mapping[str, str], path: Path, place: Place) -> PodFiles:
    """How this pod has the training's files.

    Raises:
        ConfigurationError: The URL of the artifacts cannot be used.
    """
    url = environment.get(ARTIFACTS_URL, "")
    if not url:
        return PodFiles(path)
    cache = Path(environment.get(CACHE_DIR) or Path("~/.cache/codealign").expanduser())
    return OwnDisk(path, url, cache, index=place.index, pods=place.pods)


async def run(path: Path, place: Place, files: PodFiles | None = None) -> int:
    """Take part in a training until it has ended, here or in another pod.

    Args:
        path: The job file.
        place: Which of the pods this is.
        files: The training's. None: on a volume that all pods share.

    Returns:
        The pod's exit status.
    """
    files = files or PodFiles(path)
    try:
        await files.begin()
        if (outcome := await files.outcome()) is not None:
            return _decided(outcome)
        if (outcome := await files.fetch()) is not None:
            return _decided(outcome)
        if place.pods > 1:
            return await (_lead(files, place) if place.index == 0 else _follow(files, place))
        with files.sent(files.start):
            async with _Program(files, {}) as program:
                return await _status(files, await program.wait())
    except (TrainingError, OSError) as error:  # the operator writes a job file again; a storage comes back
        say(str(error))
        return LOST


async def _lead(files: PodFiles, place: Place) -> int:
    """Pod 0: wait for the others, give the sign, and end with the first of them that is lost."""
    gathering = _Gathering(files.name, place.pods - 1)
    server = await asyncio.start_server(gathering.meet, None, place.port)
    async with contextlib.AsyncExitStack() as closing:
        closing.callback(server.close)
        closing.callback(gathering.close)
        say(f"waiting for {place.pods - 1} other pods")
        await gathering.complete.wait()
        port = _free_port()
        address = await gathering.begin(port, files.start)
        closing.enter_context(files.sent(files.start))
        async with _Program(files, _nodes(place, port, address)) as program:
            ended = asyncio.create_task(program.wait())
            lost = asyncio.create_task(gathering.lost.wait())
            await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
            # Pods that have seen the result end before this one, which has written it and is about to end.
            if not ended.done() and ((outcome := await files.outcome()) is None or outcome.state == "failed"):
                say("another pod has ended")
                ended.cancel()
                return LOST if outcome is None else _decided(await files.settle() or outcome)
            lost.cancel()
            return await _status(files, await ended)


class _Gathering:
    """Pod 0's view of the others."""

    def __init__(self, name: str, others: int) -> None:
        self.complete, self.lost = asyncio.Event(), asyncio.Event()
        self._name = name
        self._others = others
        self._here: dict[int, asyncio.StreamWriter] = {}
        self._begun = False

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Another pod, for as long as it is there."""
        _keep_alive(writer)
        number = _number(await _read(reader.readline()), self._name)
        if number is None or not 1 <= number <= self._others or self._begun:
            if number is not None and self._begun:  # it was started anew, so the one before it is gone
                self.lost.set()
            writer.close()
            return
        if known := self._here.pop(number, None):
            known.close()
        self._here[number] = writer
        if len(self._here) == self._others:
            self.complete.set()
        await _read(reader.read())
        if self._here.get(number) is writer:
            del self._here[number]
            if self._begun:
                self.lost.set()
            else:
                self.complete.clear()

    async def begin(self, port: int, start: str) -> str:
        """Give the sign; the address at which the others see this pod."""
        self._begun = True
        writers = list(self._here.values())
        if len(writers) < self._others:
            self.lost.set()
        for writer in writers:
            writer.write(f"{port} {start}\n".encode())
        return str(writers[0].get_extra_info("sockname")[0]) if writers else ""

    def close(self) -> None:
        """Let the others go."""
        for writer in self._here.values():
            writer.close()


async def _follow(files: PodFiles, place: Place) -> int:
    """A pod other than 0: meet pod 0, train with it, and stay until it is known how it ended."""
    say(f"waiting for pod 0 at {place.first}:{place.port}")
    while True:
        # Looked at for every try: where pod 0 has its result already, it does not come again.
        if (outcome := await files.outcome() or await files.fetch()) is not None:
            return _decided(outcome)
        with contextlib.suppress(OSError, TimeoutError):
            # So is pod 0's name, since it may come back with another address.
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(place.first, place.port)
            async with contextlib.AsyncExitStack() as closing:
                closing.callback(writer.close)
                _keep_alive(writer)
                writer.write(f"{files.name} {place.index}\n".encode())
                if sign := (await _read(reader.readline())).split():
                    address = str(writer.get_extra_info("sockname")[0])
                    with files.sent(b"".join(sign[1:]).decode()):
                        return await _train_beside(files, _nodes(place, int(sign[0]), address), reader)
        # Pod 0 is not there, or belongs to an earlier start and is about to end.
        await asyncio.sleep(files.retry_seconds)


async def _train_beside(files: PodFiles, variables: Mapping[str, str], reader: asyncio.StreamReader) -> int:
    async with _Program(files, variables) as program:
        ended = asyncio.create_task(program.wait())
        gone = asyncio.create_task(_read(reader.read()))
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and ended.result() != 0:
            gone.cancel()
            return await _status(files, ended.result())
        if not ended.done():
            say("pod 0 is gone")
        # This part is done, or pod 0 has ended. Pod 0 may be lost while it writes the result: its word counts.
        waited = 0.0
        while waited < _OUTCOME_SECONDS:
            if (outcome := await files.outcome()) is not None:
                break
            waited += files.poll_seconds if gone.done() else 0.0
            await asyncio.sleep(files.poll_seconds)
        ended.cancel()
        gone.cancel()
        return LOST if outcome is None else _decided(outcome)


class _Program:
    """The training program as a process, which ends with this one."""

    def __init__(self, files: PodFiles, variables: Mapping[str, str]) -> None:
        self._path = files.path
        self._variables = {**files.variables, **variables}
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> _Program:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "codealign.trainer.sft", str(self._path)),
            stdin=asyncio.subprocess.DEVNULL,
            env={**program_environment("KUBERNETES_"), FOLLOW_PARENT: str(os.getpid()), **self._variables},
            start_new_session=True,
        )
        return self

    async def wait(self) -> int:
        return await self._process.wait()

    async def __aexit__(self, *_: object) -> None:
        # Checkpoints appear whole or not at all, so there is nothing to wait for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


def _decided(outcome: Outcome) -> int:
    """The exit status that an outcome asks for."""
    if outcome.state == "failed":
        say(outcome.message)
        return CANNOT_GO_ON
    return SUCCEEDED


async def _status(files: PodFiles, ended: int) -> int:
    outcome = await files.settle()
    if outcome is None:
        how = f"was killed by signal {-ended}" if ended < 0 else f"ended with status {ended}"
        say(f"the training program {how} and left no outcome: it goes on from the last checkpoint")
        return LOST
    return _decided(outcome)


def _nodes(place: Place, port: int, address: str) -> dict[str, str]:
    variables = {NODES: f"{place.pods},{place.index},{place.first}:{port}"}
    if interface := _interface(address):
        variables["GLOO_SOCKET_IFNAME"] = interface
    return variables


def _interface(address: str) -> str | None:
    """The network interface with an IPv4 address; None where there is none, and gloo takes the host's name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address.removeprefix("::ffff:"):
                    return name
    return None


def _number(line: bytes, name: str) -> int | None:
    """Which pod says hello; None for whoever is no pod of this training."""
    words = line.decode(errors="replace").split()
    return int(words[1]) if len(words) == 2 and words[0] == name and words[1].isdecimal() else None


async def _read(reading: Awaitable[bytes]) -> bytes:
    """What comes; nothing where the connection breaks."""
    try:
        return await reading
    except OSError:
        return b""


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Notice within half a minute that the other's node is gone."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


async def _until_terminated(path: Path, place: Place, files: PodFiles) -> int:
    task = asyncio.current_task()
    assert task
    # The program is killed at once: a pod's grace is not spent on steps that no checkpoint will hold.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await run(path, place, files)
    except asyncio.CancelledError:
        return TERMINATED


def main() -> None:
    """Take part in the training of a job file; exits as the module says."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m codealign.trainer.cluster.worker <job.json>")
    path = Path(sys.argv[1])
    try:
        place = place_of(os.environ)
        files = files_of(os.environ, path, place)
    except (ValueError, ConfigurationError) as error:
        sys.exit(f"worker: {error}")
    sys.exit(asyncio.run(_until_terminated(path, place, files)))


if __name__ == "__main__":
    main()
