"""One pod's part of a training: `python -m codealign.trainer.cluster.worker <job.json>`.

All pods gather before training starts, and end together. Each pod keeps a connection to pod 0 for its whole lifetime;
when all are connected, pod 0 sends the start signal with torchrun's rendezvous port. So torchrun never waits for a pod,
a restarted pod never meets the remains of an earlier start, and a lost pod is noticed at once instead of when a
collective operation times out.

Exit status: 0 if the training succeeded, 42 if the training program failed for good (another pod would fail the same
way), 1 for failures that a restart may fix.
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
_OUTCOME_SECONDS = 15.0  # how late a network file system may show another pod's file
_SIOCGIFADDR = 0x8915  # <linux/sockios.h>


@dataclass(frozen=True)
class Place:
    """This pod's place among the pods."""

    index: int = 0
    pods: int = 1
    first: str = "127.0.0.1"
    """Host of pod 0."""
    port: int = DEFAULT_PORT
    """Port on which pod 0 waits for the others."""


def place_of(environment: Mapping[str, str]) -> Place:
    """Read this pod's place from the variables that the operator and the Job controller set.

    Raises:
        ValueError: A variable is invalid; the message names it.
    """
    numbers = {}
    for name, default in ((INDEX, "0"), (PODS, "1"), (PORT, str(DEFAULT_PORT))):
        text = environment.get(name, default)
        if not text.isdecimal():
            raise ValueError(f"{name} is {text!r}; must be a number")
        numbers[name] = int(text)
    if numbers[INDEX] >= numbers[PODS]:
        raise ValueError(f"{INDEX} is {numbers[INDEX]}; must be below {PODS}={numbers[PODS]}")
    if numbers[PODS] > 1 and not environment.get(FIRST_POD):
        raise ValueError(f"{FIRST_POD} is not set; must be the DNS name of pod 0")
    return Place(numbers[INDEX], numbers[PODS], environment.get(FIRST_POD, "127.0.0.1"), numbers[PORT])


def files_of(environment: Mapping[str, str], path: Path, place: Place) -> PodFiles:
    """Return how this pod accesses the training's files.

    Raises:
        ConfigurationError: The artifacts URL cannot be used.
    """
    url = environment.get(ARTIFACTS_URL, "")
    if not url:
        return PodFiles(path)
    cache = Path(environment.get(CACHE_DIR) or Path("~/.cache/codealign").expanduser())
    return OwnDisk(path, url, cache, index=place.index, pods=place.pods)


async def run(path: Path, place: Place, files: PodFiles | None = None) -> int:
    """Take part in a training until it ends, here or in another pod.

    Args:
        path: The job file.
        place: This pod's place.
        files: The training's files. None: on a volume shared by all pods.

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
    except (TrainingError, OSError) as error:  # the operator rewrites the job file, and storage recovers
        say(str(error))
        return LOST


async def _lead(files: PodFiles, place: Place) -> int:
    """Run pod 0: wait for the others, send the start signal, and stop when one of them is lost."""
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
            # Pods that have seen the result end before pod 0, which has written it and is about to end.
            if not ended.done() and ((outcome := await files.outcome()) is None or outcome.state == "failed"):
                say("another pod has ended; stopping")
                ended.cancel()
                return LOST if outcome is None else _decided(await files.settle() or outcome)
            lost.cancel()
            return await _status(files, await ended)


class _Gathering:
    """Pod 0's connections to the other pods."""

    def __init__(self, name: str, others: int) -> None:
        self.complete, self.lost = asyncio.Event(), asyncio.Event()
        self._name = name
        self._others = others
        self._here: dict[int, asyncio.StreamWriter] = {}
        self._begun = False

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle another pod's connection for its whole lifetime."""
        _keep_alive(writer)
        number = _number(await _read(reader.readline()), self._name)
        if number is None or not 1 <= number <= self._others or self._begun:
            if number is not None and self._begun:  # the pod was restarted, so its predecessor is gone
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
        """Send the start signal; return the address at which the others see this pod."""
        self._begun = True
        writers = list(self._here.values())
        if len(writers) < self._others:
            self.lost.set()
        for writer in writers:
            writer.write(f"{port} {start}\n".encode())
        return str(writers[0].get_extra_info("sockname")[0]) if writers else ""

    def close(self) -> None:
        """Close all connections."""
        for writer in self._here.values():
            writer.close()


async def _follow(files: PodFiles, place: Place) -> int:
    """Run a pod other than 0: connect to pod 0, train with it, and stay until the outcome is known."""
    say(f"waiting for pod 0 at {place.first}:{place.port}")
    while True:
        # Check before every attempt: once pod 0 has a result, it does not come back.
        if (outcome := await files.outcome() or await files.fetch()) is not None:
            return _decided(outcome)
        with contextlib.suppress(OSError, TimeoutError):
            # Resolve pod 0's name again each time, since its address may change.
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
        # Pod 0 is not running, or belongs to an earlier start and is about to end.
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
            say("lost the connection to pod 0")
        # This pod's part is done, or pod 0 has ended, perhaps while writing the result: the outcome file decides.
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
    """The training program as a child process, which ends with this process."""

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
        # Checkpoints are atomic, so the program can be killed at any time.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


def _decided(outcome: Outcome) -> int:
    """Return the exit status for an outcome."""
    if outcome.state == "failed":
        say(outcome.message)
        return CANNOT_GO_ON
    return SUCCEEDED


async def _status(files: PodFiles, ended: int) -> int:
    outcome = await files.settle()
    if outcome is None:
        how = f"was killed by signal {-ended}" if ended < 0 else f"ended with status {ended}"
        say(f"the training program {how} without an outcome; training continues from the last checkpoint")
        return LOST
    return _decided(outcome)


def _nodes(place: Place, port: int, address: str) -> dict[str, str]:
    variables = {NODES: f"{place.pods},{place.index},{place.first}:{port}"}
    if interface := _interface(address):
        variables["GLOO_SOCKET_IFNAME"] = interface
    return variables


def _interface(address: str) -> str | None:
    """Return the network interface with this IPv4 address, or None, in which case gloo uses the host name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address.removeprefix("::ffff:"):
                    return name
    return None


def _number(line: bytes, name: str) -> int | None:
    """Return the index of the pod that connects, or None if it is not a pod of this training."""
    words = line.decode(errors="replace").split()
    return int(words[1]) if len(words) == 2 and words[0] == name and words[1].isdecimal() else None


async def _read(reading: Awaitable[bytes]) -> bytes:
    """Return what is read, or nothing if the connection breaks."""
    try:
        return await reading
    except OSError:
        return b""


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Detect the loss of the peer's node within half a minute."""
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
    # Kill the program at once: no checkpoint would include the steps of the grace period.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await run(path, place, files)
    except asyncio.CancelledError:
        return TERMINATED


def main() -> None:
    """Take part in the training of a job file; exit with the status that the module documents."""
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
