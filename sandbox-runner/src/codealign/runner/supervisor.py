"""The trusted process inside the box: frames on standard input become executions, their outcomes go to standard output.

    python -S -s -P -m codealign.runner.supervisor CONFIGURATION

where CONFIGURATION is a JSON object with the fields of `Configuration`. The end of standard input ends the process,
and with it, since it is the box's first process, the box: a gateway that dies leaves nothing behind.
"""

import dataclasses
import json
import os
import platform
import queue
import sys
import threading
import traceback
from typing import BinaryIO

from codealign.api.runner.v1 import runner_pb2
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import frames, job, walls
from codealign.runner.profiles import MIB, PROFILES, Profile
from codealign.runner.slot import Ledger, Slot, SlotLost

_SUPERVISOR_USER = 65532
_FIRST_SLOT_USER = 65600
_BASE_MEMORY = 512 * MIB
"""What supervisor, fork servers and the caches of the sandbox's kernel may take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """What the gateway tells a runner about itself."""

    name: str
    slots: int
    profile: str
    backend: str
    platform: str = ""
    gvisor_version: str = ""
    image_digest: str = ""
    hidden: tuple[str, ...] = ()
    """Paths of the host that the files probe looks for."""


def _box_limit(profile: Profile, slots: int) -> int:
    usual = slots * (profile.defaults.memory_bytes + profile.defaults.disk_bytes)
    return max(usual, profile.maxima.memory_bytes + profile.maxima.disk_bytes) + _BASE_MEMORY


def _start_slots(profile: Profile, count: int) -> list[Slot]:
    """Every slot gets a user of its own where this process may give one, which it may never again afterwards."""
    ledger = Ledger(_box_limit(profile, count))
    is_root = os.getuid() == 0
    slots = [Slot(index, profile, ledger, _FIRST_SLOT_USER + index if is_root else None) for index in range(count)]
    if is_root:
        os.setgroups([])
        os.setgid(_SUPERVISOR_USER)
        os.setuid(_SUPERVISOR_USER)
    for slot in slots:
        slot.wait_ready()
    ledger.idle()
    return slots


class Supervisor:
    """Takes jobs from a stream and runs each in a free slot."""

    def __init__(self, configuration: Configuration, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._configuration = configuration
        self._incoming = incoming
        self._writer = frames.FrameWriter(outgoing)
        self._jobs: queue.SimpleQueue[runner_pb2.Job | None] = queue.SimpleQueue()
        self._cancelled: dict[int, threading.Event] = {}

    def serve(self) -> None:
        """Proves the walls, says hello, then works until the stream ends."""
        configuration = self._configuration
        slots = _start_slots(PROFILES[configuration.profile], configuration.slots)
        proved = walls.prove(slots, configuration.hidden)
        holds = all(wall.holds for wall in proved)
        self._hello(proved, holds)
        workers = [threading.Thread(target=self._work, args=(slot,), daemon=True) for slot in slots if holds]
        for worker in workers:
            worker.start()
        while (frame := frames.read_request(self._incoming)) is not None:
            match frame.WhichOneof("frame"):
                case "job":
                    self._cancelled[frame.job.id] = threading.Event()
                    self._jobs.put(frame.job)
                case "cancel":
                    event = self._cancelled.get(frame.cancel.id)
                    if event is not None:
                        event.set()
                case "drain":
                    for _ in workers:
                        self._jobs.put(None)
                    for worker in workers:
                        worker.join()
                    return

    def _hello(self, proved: list[pb.Wall], holds: bool) -> None:
        configuration = self._configuration
        runner = pb.Runner(
            name=configuration.name,
            state=pb.RUNNER_STATE_READY if holds else pb.RUNNER_STATE_REFUSED,
            backend=configuration.backend,
            platform=configuration.platform,
            gvisor_version=configuration.gvisor_version,
            isolation=pb.ISOLATION_GVISOR if holds else pb.ISOLATION_UNSPECIFIED,
            walls=proved,
            slots=configuration.slots,
            image_digest=configuration.image_digest,
            python_version=platform.python_version(),
            profiles=[configuration.profile],
        )
        self._writer.write(runner_pb2.AttachResponse(hello=runner_pb2.Hello(runner=runner)))

    def _work(self, slot: Slot) -> None:
        while (item := self._jobs.get()) is not None:
            try:
                result = job.run(slot, item.request, self._cancelled[item.id])
            except SlotLost as error:
                # A fork server cannot be started again without privilege: a new runner can.
                print(f"supervisor: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            except Exception:
                traceback.print_exc()
                os._exit(1)
            result.isolation = pb.ISOLATION_GVISOR
            result.runner = self._configuration.name
            result.image_digest = self._configuration.image_digest
            del self._cancelled[item.id]
            outcome = runner_pb2.Outcome(id=item.id, result=result)
            self._writer.write(runner_pb2.AttachResponse(outcome=outcome))


def main(argument: str) -> None:
    """Serves the gateway at the other end of standard input and output."""
    fields = json.loads(argument)
    fields["hidden"] = tuple(fields.get("hidden", ()))
    configuration = Configuration(**fields)
    # Whatever prints by accident must not land between frames.
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        Supervisor(configuration, sys.stdin.buffer, outgoing).serve()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Threads of the slots may still run: the box ends all the same.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
