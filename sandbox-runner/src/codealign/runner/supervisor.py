"""The trusted process inside the sandbox: the slots and the jobs they run, independent of the transport.

`stdio` and `pod` deliver the jobs. If a slot is lost or the sandbox is no longer sound, the process ends, and with it
the sandbox. Another runner repeats the unfinished jobs.
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
from typing import NoReturn

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import isolation_checks, job
from codealign.runner.configuration import Configuration, box_bytes, use_program_environment
from codealign.runner.profiles import DEFAULT, Profile
from codealign.runner.slot import SITE, Ledger, Slot, SlotLost
from codealign.runner.soundness import Soundness, Unsound, threads_here

_SUPERVISOR_USER = 65532
_FIRST_SLOT_USER = 65600
_MORE_THREADS = 32
"""Additional threads that the transport may start."""
_CHECK_EVERY = 100
"""Executions between two soundness checks."""
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
"""Verdicts after which soundness is checked immediately, because something was killed."""

_ISOLATION = {"gvisor": pb.ISOLATION_GVISOR, "process": pb.ISOLATION_PROCESS}


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    request: pb.ExecuteRequest
    finished: Callable[[pb.Result], None]
    cancelled: threading.Event
    given_at: float


def installed_packages(profile: Profile, site: str = SITE) -> dict[str, str]:
    """Return the profile's packages that are installed in the runner, with their versions ("": unknown)."""
    versions = {name: "" for name in profile.packages if os.path.isdir(os.path.join(site, name))}
    for entry in os.listdir(site):
        name, _, version = entry.removesuffix(".dist-info").partition("-")
        if entry.endswith(".dist-info") and name in versions:
            versions[name] = version
    return versions


def _start_slots(profile: Profile, count: int, most_bytes: int) -> list[Slot]:
    """Start the slots, each with a user of its own if this process may assign one. It cannot do so again afterwards."""
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
    """Runs jobs in its slots, in order of arrival, once its isolation is verified. Starts nothing before `start`.

    Args:
        configuration: The runner's configuration.
        spare_descriptors: See `Soundness`.

    Attributes:
        description: Content of the hello; complete once `start` has returned.
    """

    def __init__(self, configuration: Configuration, spare_descriptors: int = 0) -> None:
        self._configuration = configuration
        self._spare_descriptors = spare_descriptors
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running = 0
        self._since_check = 0
        self._slots: list[Slot] = []
        self.description = pb.Runner(name=configuration.name, state=pb.RUNNER_STATE_STARTING)

    def start(self) -> None:
        """Start the slots, verify the isolation, and accept jobs if every check passes. Takes seconds.

        Raises:
            SlotLost: A fork server did not start (a package may be broken), or failed under a probe.
        """
        configuration = self._configuration
        use_program_environment()
        isolated = configuration.isolation == "gvisor"
        proved, slots, packages = [isolation_checks.kernel()], [], {}
        # Outside gVisor nothing is started, not even a probe, unless explicitly configured.
        if proved[0].passed or not isolated:
            packages = installed_packages(DEFAULT)
            profile = DEFAULT.with_packages(packages)
            # Without gVisor, memory usage is that of the whole machine, so it says nothing about the sandbox.
            most = box_bytes(profile, configuration.slots) if isolated else sys.maxsize
            slots = _start_slots(profile, configuration.slots, most)
            proved = isolation_checks.run_all(slots, profile, configuration.hidden)
        works = not isolated or all(check.passed for check in proved)
        self.description = pb.Runner(
            name=configuration.name,
            state=pb.RUNNER_STATE_READY if works else pb.RUNNER_STATE_REFUSED,
            backend=configuration.backend,
            platform=configuration.platform,
            gvisor_version=configuration.gvisor_version,
            isolation=_ISOLATION[configuration.isolation] if works else pb.ISOLATION_UNSPECIFIED,
            isolation_checks=proved,
            slots=configuration.slots,
            image_digest=configuration.image_digest,
            python_version=platform.python_version(),
            profiles=[DEFAULT.name],
            packages=packages,
        )
        self._slots = slots
        self._soundness = Soundness(self._spare_descriptors)
        for slot in slots if works else ():
            threading.Thread(target=self._work, args=(slot,), daemon=True).start()

    @property
    def works(self) -> bool:
        """Whether the supervisor accepts jobs."""
        return self.description.state == pb.RUNNER_STATE_READY

    def submit(self, request: pb.ExecuteRequest, finished: Callable[[pb.Result], None]) -> threading.Event:
        """Run a job as soon as a slot is free.

        Args:
            request: A request validated by the gateway, with every limit filled in.
            finished: Called once with the result, from a thread of the supervisor.

        Returns:
            An event to set when the result is no longer wanted; `finished` is called anyway.
        """
        given = _Job(request, finished, threading.Event(), time.monotonic())
        self._jobs.put(given)
        return given.cancelled

    def note_processor_time(self, seconds: float) -> None:
        """Record the processor time that the sandbox has received since its start, as reported from outside."""
        for slot in self._slots[:1]:
            slot.ledger.waits.given(seconds)

    def _work(self, slot: Slot) -> None:
        while True:
            given = self._jobs.get()
            try:
                given.finished(self._run(slot, given))
            except (SlotLost, Unsound) as error:
                # Only a new runner can start a fork server: this one no longer has the privilege.
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
        """Check the sandbox before a result is delivered: results of an unsound sandbox are worthless."""
        with self._lock:
            self._since_check += 1
            due = self._since_check >= _CHECK_EVERY or verdict in _UNCLEAN
            if due:
                self._since_check = 0
            running = self._running
        if due:
            self._soundness.check(running)


def give_up(why: str) -> NoReturn:
    """End the process immediately, whatever its threads are doing."""
    print(f"supervisor: {why}", file=sys.stderr, flush=True)
    os._exit(1)
