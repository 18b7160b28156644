"""One gateway's stream of frames, independent of the transport: its jobs by id and the delivery of results."""

from __future__ import annotations

import threading
from collections.abc import Callable

from codealign.api.runner.v1 import runner_pb2
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner.supervisor import Supervisor


class ProtocolError(Exception):
    """A frame that the contract does not allow; the stream must be closed."""


class TooManyJobs(ProtocolError):
    """More concurrent jobs than the runner has slots."""


class Session:
    """The jobs of one stream. Frames may be received in one thread while results are sent from others.

    Args:
        supervisor: Runs the jobs.
        send: Called with each outgoing frame, from any thread.
        idle: Called, from any thread, when the last job has ended after a drain was requested.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        send: Callable[[runner_pb2.AttachResponse], None],
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._supervisor = supervisor
        self._send = send
        self._idle = idle
        self._lock = threading.Lock()
        self._jobs: dict[int, threading.Event] = {}
        self._leaving = 0
        self._drains = False

    def hello(self) -> None:
        """Send the description of the runner. Must be called first."""
        self._send(runner_pb2.AttachResponse(hello=runner_pb2.Hello(runner=self._supervisor.description)))

    def take(self, frame: runner_pb2.AttachRequest) -> None:
        """Handle one frame from the gateway.

        Raises:
            ProtocolError: The frame is not allowed in the current state.
        """
        match frame.WhichOneof("frame"):
            case "job":
                self._start(frame.job)
            case "cancel":
                with self._lock:
                    cancelled = self._jobs.get(frame.cancel.id)
                if cancelled is not None:
                    cancelled.set()
            case "drain":
                self.drain()
            case "processor_time":
                self._supervisor.note_processor_time(frame.processor_time.seconds)

    def drain(self) -> None:
        """Accept no more jobs, and call `idle` as soon as none is left."""
        with self._lock:
            self._drains = True
            is_idle = not self._jobs and not self._leaving
        if is_idle:
            self._idle()

    def say_draining(self) -> None:
        """Tell the gateway to send no more jobs. Jobs already on their way are still run."""
        runner = pb.Runner()
        runner.CopyFrom(self._supervisor.description)
        runner.state = pb.RUNNER_STATE_DRAINING
        self._send(runner_pb2.AttachResponse(hello=runner_pb2.Hello(runner=runner)))

    def abandon(self) -> None:
        """Cancel every job, because nothing will receive the results."""
        with self._lock:
            jobs = list(self._jobs.values())
        for cancelled in jobs:
            cancelled.set()

    def _start(self, given: runner_pb2.Job) -> None:
        if not self._supervisor.works:
            raise ProtocolError("a job for a runner that does not accept work")
        slots = self._supervisor.description.slots
        with self._lock:
            if given.id in self._jobs:
                raise ProtocolError(f"duplicate job id {given.id}")
            if len(self._jobs) >= slots:
                raise TooManyJobs(f"too many jobs: {len(self._jobs)} are running and this runner has {slots} slots")
            # Under the lock, so that the callback finds the job.
            self._jobs[given.id] = self._supervisor.submit(given.request, lambda result: self._finish(given.id, result))

    def _finish(self, number: int, result: pb.Result) -> None:
        with self._lock:
            # Before the result is sent: the gateway may answer it with the next job.
            del self._jobs[number]
            self._leaving += 1
        self._send(runner_pb2.AttachResponse(outcome=runner_pb2.Outcome(id=number, result=result)))
        with self._lock:
            self._leaving -= 1
            is_idle = self._drains and not self._jobs and not self._leaving
        if is_idle:
            self._idle()
