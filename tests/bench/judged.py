"""Results of programs in the sandbox, each executed once: kept in a file, so that a repetition costs nothing."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from google.protobuf import json_format

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from services.sandbox.tests.conftest import Gateway
from tests import gateways

Execute = Callable[[Iterable[sb.ExecuteRequest]], Iterable[sb.Result]]
"""Executes programs and returns their results in any order."""
_EVERY = 200
_RUNNERS = 2


class Executions:
    """Results of programs.

    Args:
        kept: File with the results so far, one JSON object per line; new ones are appended.
        execute: Executes the programs that are not there.
    """

    def __init__(self, kept: Path, execute: Execute) -> None:
        self._kept, self._execute = kept, execute
        rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()] if kept.exists() else []
        self._results = {row["key"]: json_format.ParseDict(row["result"], sb.Result()) for row in rows}

    def of(self, programs: Sequence[sb.Program], limits: Sequence[sb.Limits] = ()) -> list[sb.Result]:
        """Return the results of programs in their order; equal ones are executed once.

        Args:
            programs: The programs.
            limits: Of each program. Empty: the sandbox's own.
        """
        pairs = list(zip(programs, limits or [sb.Limits()] * len(programs), strict=True))
        wanted = {key_of(*pair): pair for pair in pairs}
        missing = [
            sb.ExecuteRequest(program=program, limits=own, request_id=key)
            for key, (program, own) in wanted.items()
            if key not in self._results
        ]
        with self._kept.open("a", encoding="utf-8") as file:
            for number, result in enumerate(self._execute(missing) if missing else (), 1):
                self._results[result.request_id] = result
                if result.verdict != sb.VERDICT_INFRASTRUCTURE:
                    said = json_format.MessageToDict(_essence(result))
                    file.write(f"{json.dumps({'key': result.request_id, 'result': said})}\n")
                    file.flush()
                if number % _EVERY == 0:
                    print(f"executed {number:,} of {len(missing):,} programs", flush=True)
        return [self._results[key_of(*pair)] for pair in pairs]


def key_of(program: sb.Program, limits: sb.Limits | None = None) -> str:
    """Return what identifies a program and the limits that are set for it."""
    own = b"" if limits is None else limits.SerializeToString(deterministic=True)
    return hashlib.sha256(program.SerializeToString(deterministic=True) + own).hexdigest()


def _essence(result: sb.Result) -> sb.Result:
    """Return what a verdict rests on, without times and places."""
    return sb.Result(
        request_id=result.request_id,
        verdict=result.verdict,
        detail=result.detail,
        failing_line=result.failing_line,
        failing_source=result.failing_source,
        stdout=sb.Output(data=result.stdout.data),
        isolation=result.isolation,
    )


class Sandbox:
    """A gateway with gVisor, started when something is to be executed."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        """Ends with the stack."""
        self._stack = stack

    @functools.cached_property
    def gateway(self) -> Gateway:
        """The gateway."""
        cache = self._stack.enter_context(gateways.own_cache())
        return self._stack.enter_context(gateways.started(cache, _RUNNERS, 1))

    def execute(self, requests: Iterable[sb.ExecuteRequest]) -> Iterator[sb.Result]:
        """Execute programs over one stream."""
        asked = (sb.ExecuteStreamRequest(request=request) for request in requests)
        for response in self.gateway.stub.ExecuteStream(asked):
            yield response.result
