"""The trusted process inside the box: slots, and the jobs that they run. It knows no transport.

`stdio` and `pod` bring it jobs. Whatever they are: a slot that is lost, or a box that is no longer sound, ends the
process and with it the box, and what it was doing is another runner's to do again.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import NoReturn

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import job, walls
from codealign.runner.configuration import Configuration, box_bytes, program_environment
from codealign.runner.profiles import PROFILES, Profile
from codealign.runner.slot import SITE, Ledger, Slot, SlotLost
from codealign.runner.soundness import Soundness, Unsound, threads_here

_SUPERVISOR_USER = 65532
_FIRST_SLOT_USER = 65600
_MORE_THREADS = 32
"""Threads that the supervisor may yet start: a transport's."""
_CHECK_EVERY = 100
"""Executions between two looks at the box."""
_UNCLEAN = frozenset(
    {
        pb.VERDICT_OUT_OF_MEMORY,
        pb.VERDICT_PROCESS_LIMIT,
        pb.VERDICT_DISK_LIMIT,
        pb.VERDICT_OUTPUT_LIMIT,
        pb.VERDICT_TIMED_OUT,
        pb.VERDICT_CRASHED,
    }
)
"""After these the box is looked at at once: something in it was killed."""

_ISOLATION = {"gvisor": pb.ISOLATION_GVISOR, "process": pb.ISOLATION_PROCESS}


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    request: pb.ExecuteRequest
    finished: Callable[[pb.Result], None]
    cancelled: threading.Event
    given_at: float


def _check_packages(profile: Profile) -> None:
    for package in profile.packages:
        if PathFinder.find_spec(package, [SITE]) is None:
            raise SlotLost(f"profile {profile.name!r}: the package {package} is not installed beside the runner")


def _start_slots(profile: Profile, count: int, most_bytes: int) -> list[Slot]:
    """Every slot gets a user of its own where this process may give one, which it may never again afterwards."""
    ledger = Ledger(most_bytes)
    is_root = os.getuid() == 0
    slots = [Slot(index, profile, ledger, _FIRST_SLOT_USER + index if is_root else None) for index in range(count)]
    if is_root:
        os.setgroups([])
        os.setgid(_SUPERVISOR_USER)
        os.setuid(_SUPERVISOR_USER)
    for slot in slots:
        slot.wait_ready()
    ledger.idle()
    if not is_root:
        neighbours = threads_here() + _MORE_THREADS + (count - 1) * profile.maxima.threads
        for slot in slots:
            slot.neighbours = neighbours
    return slots


class Supervisor:
    """Runs jobs in its slots, in the order in which they come, once its walls are proved.

    Attributes:
        description: What a hello says; complete once `start` has returned.
    """

    def __init__(self, configuration: Configuration, spare_descriptors: int = 0) -> None:
        """Starts nothing yet.

        Args:
            configuration: Its own.
            spare_descriptors: See `Soundness`.
        """
        self._configuration = configuration
        self._spare_descriptors = spare_descriptors
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running = 0
        self._since_check = 0
        self._slots: list[Slot] = []
        self.description = pb.Runner(name=configuration.name, state=pb.RUNNER_STATE_STARTING)

    def start(self) -> None:
        """Starts the slots, proves the walls, and works from then on if they hold. Takes seconds.

        Raises:
            SlotLost: A package of the profile is missing, or a fork server did not start or failed under the probe.
        """
        configuration = self._configuration
        environment = program_environment(os.environ)
        os.environ.clear()
        os.environ.update(environment)
        isolated = configuration.isolation == "gvisor"
        proved, slots = [walls.kernel()], []
        # Elsewhere than in gVisor nothing is started, not even a probe, unless that is what was asked for.
        if proved[0].holds or not isolated:
            profile = PROFILES[configuration.profile]
            _check_packages(profile)
            # Without gVisor the box's memory is the whole machine's, and nothing is known of that.
            most = box_bytes(profile, configuration.slots) if isolated else sys.maxsize
            slots = _start_slots(profile, configuration.slots, most)
            proved = walls.prove(slots, profile, configuration.hidden)
        works = not isolated or all(wall.holds for wall in proved)
        self.description = pb.Runner(
            name=configuration.name,
            state=pb.RUNNER_STATE_READY if works else pb.RUNNER_STATE_REFUSED,
            backend=configuration.backend,
            platform=configuration.platform,
            gvisor_version=configuration.gvisor_version,
            isolation=_ISOLATION[configuration.isolation] if works else pb.ISOLATION_UNSPECIFIED,
            walls=proved,
            slots=configuration.slots,
            image_digest=configuration.image_digest,
            python_version=platform.python_version(),
            profiles=PROFILES[configuration.profile].offered,
        )
        self._slots = slots
        self._soundness = Soundness(self._spare_descriptors)
        for slot in slots if works else ():
            threading.Thread(target=self._work, args=(slot,), daemon=True).start()

    @property
    def works(self) -> bool:
        """Whether it takes jobs."""
        return self.description.state == pb.RUNNER_STATE_READY

    def submit(self, request: pb.ExecuteRequest, finished: Callable[[pb.Result], None]) -> threading.Event:
        """Runs a job as soon as a slot is free.

        Args:
            request: Checked by the gateway, every limit filled in.
            finished: Called once, from a thread of ours, with the result.

        Returns:
            To be set when nobody waits for the result any more; `finished` is called all the same.
        """
        given = _Job(request, finished, threading.Event(), time.monotonic())
        self._jobs.put(given)
        return given.cancelled

    def note_processor_time(self, seconds: float) -> None:
        """Someone outside the box says how much processor time it has had since its start."""
        for slot in self._slots[:1]:
            slot.ledger.waits.given(seconds)

    def _work(self, slot: Slot) -> None:
        while True:
            given = self._jobs.get()
            try:
                given.finished(self._run(slot, given))
            except (SlotLost, Unsound) as error:
                # A fork server cannot be started again without privilege: a new runner can.
                give_up(str(error))
            except Exception:
                traceback.print_exc()
                give_up("a job could not be run")

    def _run(self, slot: Slot, given: _Job) -> pb.Result:
        waited = time.monotonic() - given.given_at
        if given.cancelled.is_set():
            return pb.Result(request_id=given.request.request_id, detail="cancelled")
        with self._lock:
            self._running += 1
        try:
            result = job.run(slot, given.request, given.cancelled)
        finally:
            with self._lock:
                self._running -= 1
        self._check(result.verdict)
        result.isolation = self.description.isolation
        result.runner = self._configuration.name
        result.image_digest = self._configuration.image_digest
        result.queue_seconds = waited
        return result

    def _check(self, verdict: pb.Verdict.ValueType) -> None:
        """Before the result is given away: what an unsound box says is worth nothing."""
        with self._lock:
            self._since_check += 1
            due = self._since_check >= _CHECK_EVERY or verdict in _UNCLEAN
            if due:
                self._since_check = 0
            running = self._running
        if due:
            self._soundness.check(running)


def give_up(why: str) -> NoReturn:
    """Ends the process, whatever its threads do."""
    print(f"supervisor: {why}", file=sys.stderr, flush=True)
    os._exit(1)
