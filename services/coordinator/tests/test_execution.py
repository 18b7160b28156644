"""What becomes of a sandbox's results: which are kept, for whom, and which are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from codealign.common import records
from codealign.common.clients import Addresses, Clients
from codealign.coordinator import calls
from codealign.coordinator.runs.execution import UNDECIDED, Execution, passed
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.store import RunStore

RESPONSE = records.complete(
    pb.Record(kind=pb.KIND_RESPONSE, parents=["0" * 32], response=pb.Response(code="x = 1", tests="assert x"))
)


class Sandbox(rpc.SandboxServiceServicer):
    """Gives the results that it was told to, in order; the last one for ever."""

    def __init__(self) -> None:
        self.results: list[sb.Result] = []
        self.requests: list[sb.ExecuteRequest] = []

    def will_say(self, *verdicts: sb.Verdict.ValueType, **fields: Any) -> None:
        fields.setdefault("isolation", sb.ISOLATION_GVISOR)
        self.results = [sb.Result(verdict=verdict, **fields) for verdict in verdicts]

    async def Execute(self, request: sb.ExecuteRequest, context: Any) -> sb.ExecuteResponse:
        self.requests.append(request)
        return sb.ExecuteResponse(result=self.results.pop(0) if len(self.results) > 1 else self.results[0])


class Store(RunStore):
    """Keeps records in memory; the first write wins."""

    def __init__(self) -> None:
        self.kept: dict[str, pb.Record] = {}

    async def append(self, record: pb.Record) -> pb.Record:
        records.complete(record)
        return self.kept.setdefault(record.id, record)

    async def get(self, ids: Sequence[str]) -> dict[str, pb.Record]:
        return {each: self.kept[each] for each in ids if each in self.kept}


class Bench:
    """Runs that share a store and a sandbox."""

    def __init__(self, clients: Clients, sandbox: Sandbox) -> None:
        self.clients, self.sandbox, self.store = clients, sandbox, Store()

    def run(self, name: str, runs: int = 1) -> Execution:
        return Execution(
            run_id=records.derive_id(pb.KIND_RUN, content=name),
            config_id=records.derive_id(pb.KIND_STAGE_CONFIG, content=f"runs={runs}"),
            settings=pb.ExecutionSettings(runs=runs),
            store=self.store,
            clients=self.clients,
            tally=StageTally(),
            slots=asyncio.Semaphore(1),
            gate=lambda: None,
        )


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(calls, "_PAUSE_SECONDS", 0.0)
    server, sandbox = grpc.aio.server(), Sandbox()  # type: ignore[abstract]
    rpc.add_SandboxServiceServicer_to_server(sandbox, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Clients(Addresses(sandbox=f"127.0.0.1:{port}")) as clients:
        yield Bench(clients, sandbox)
    await server.stop(None)


async def test_a_verdict_on_the_program_is_found_by_every_run(bench: Bench) -> None:
    bench.sandbox.will_say(sb.VERDICT_PASSED)
    first = await bench.run("one").judge(RESPONSE)
    second = await bench.run("two").judge(RESPONSE)
    assert first == second
    assert passed(second)
    assert len(bench.sandbox.requests) == 1


@pytest.mark.parametrize("verdict", [sb.VERDICT_TIMED_OUT, sb.VERDICT_OUT_OF_MEMORY])
async def test_a_verdict_on_the_machine_is_the_runs_alone(bench: Bench, verdict: sb.Verdict.ValueType) -> None:
    bench.sandbox.will_say(verdict, sb.VERDICT_PASSED)
    one = bench.run("one")
    kept = await one.judge(RESPONSE)
    assert kept is not None
    assert kept.verdict.result.verdict == verdict
    assert list(kept.parents) == [RESPONSE.id, one.run_id]
    assert passed(await bench.run("two").judge(RESPONSE)), "another run executes it for itself"
    again = bench.run("one")
    assert await again.judge(RESPONSE) == kept, "a run that goes on has its own record"
    assert again.tally.reasons == {sb.Verdict.Name(verdict).removeprefix("VERDICT_"): 1}
    assert len(bench.sandbox.requests) == 2


async def test_an_infrastructure_fault_is_recorded_nowhere(bench: Bench) -> None:
    bench.sandbox.will_say(sb.VERDICT_INFRASTRUCTURE)
    run = bench.run("one")
    assert await run.judge(RESPONSE) is None
    assert run.tally.reasons == {UNDECIDED: 1}
    assert len(bench.sandbox.requests) == calls.INFRASTRUCTURE_TRIES
    assert bench.store.kept == {}
    bench.sandbox.will_say(sb.VERDICT_PASSED)
    assert passed(await bench.run("one").judge(RESPONSE))


@pytest.mark.parametrize("isolation", [sb.ISOLATION_PROCESS, sb.ISOLATION_UNSPECIFIED])
async def test_what_ran_without_isolation_is_recorded_nowhere_and_stops_the_run(
    bench: Bench, isolation: sb.Isolation.ValueType
) -> None:
    bench.sandbox.will_say(sb.VERDICT_PASSED, isolation=isolation, runner="process-1")
    with pytest.raises(RunFailed, match=r"'process-1' executes without gVisor's isolation"):
        await bench.run("one").judge(RESPONSE)
    assert bench.store.kept == {}


async def test_a_refusal_needs_no_isolation(bench: Bench) -> None:
    bench.sandbox.will_say(sb.VERDICT_REFUSED, isolation=sb.ISOLATION_UNSPECIFIED)
    kept = await bench.run("one").judge(RESPONSE)
    assert kept is not None
    assert not passed(kept)


async def test_flaky_is_recorded_with_its_runs_and_does_not_pass(bench: Bench) -> None:
    differing = [sb.VERDICT_PASSED, sb.VERDICT_FAILED_ASSERTION, sb.VERDICT_PASSED]
    bench.sandbox.will_say(sb.VERDICT_FLAKY, run_verdicts=differing, detail="its runs differ")
    run = bench.run("one", runs=3)
    kept = await run.judge(RESPONSE)
    assert kept is not None
    assert bench.sandbox.requests[0].runs == 3
    assert list(kept.verdict.result.run_verdicts) == differing
    assert list(kept.parents) == [RESPONSE.id]
    assert not passed(kept), "so selection never sees it"
    assert (run.tally.kept, run.tally.reasons) == (0, {"FLAKY": 1})


async def test_flaky_for_a_time_out_says_as_much_of_the_machine(bench: Bench) -> None:
    bench.sandbox.will_say(sb.VERDICT_FLAKY, run_verdicts=[sb.VERDICT_PASSED, sb.VERDICT_TIMED_OUT])
    run = bench.run("one", runs=2)
    kept = await run.judge(RESPONSE)
    assert kept is not None
    assert list(kept.parents) == [RESPONSE.id, run.run_id]
