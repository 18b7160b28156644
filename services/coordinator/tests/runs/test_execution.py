"""Handling of sandbox results: which are stored and shared between runs, and which are not."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.errors import FailedPrecondition, Internal, InvalidArgument, Unavailable
from codealign.coordinator import pipelines
from codealign.coordinator.ground import calls, faults, windows
from codealign.coordinator.ground.faults import RunFailed, RunStopped
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import verdict_name
from codealign.coordinator.pipelines.stage import Item, Settings
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.breaker import UNDECIDED, Breaker
from codealign.coordinator.runs.config import run_records, stage_configs
from codealign.coordinator.runs.context import Context
from codealign.coordinator.runs.execution import Execution
from codealign.coordinator.runs.progress import empty_progress
from fakes import FakeServices, toys
from fakes.sandbox import IMAGE_DIGEST

SEED = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="def f(x): return x")))
RESPONSE = records.complete(
    pb.Record(kind=pb.KIND_RESPONSE, parents=[SEED.id], response=pb.Response(code="x = 1", tests="assert x"))
)
ITEM = Item(RESPONSE, "key")


class Bench:
    """Test bench: runs that share a store and a sandbox."""

    def __init__(self) -> None:
        self.fakes = FakeServices()
        self.dataset, self.sandbox = self.fakes.dataset, self.fakes.sandbox
        self.dataset.put(SEED, RESPONSE)

    def will_say(self, *verdicts: sb.Verdict.ValueType, **fields: Any) -> None:
        """Make the sandbox return these verdicts in order, repeating the last one."""
        left = deque(sb.Result(verdict=verdict, **fields) for verdict in verdicts)
        self.sandbox.judges = lambda program: left.popleft() if len(left) > 1 else left[0]

    def run(self, seed: int = 1, runs: int = 1) -> Execution:
        record = toys.run_record("one-line", execution=pb.ExecutionSettings(runs=runs))
        run = record.run
        run.seed = seed
        config, record = run_records(run)
        self.dataset.put(config, record)
        pipeline = pipelines.get("one-line")
        configs = stage_configs(run)
        self.dataset.put(*configs.all())
        self.progress = empty_progress(run)
        self.context = Context(
            record,
            pipeline,
            Settings(run),
            configs,
            RunStore(self.dataset, record.id),
            BenchmarkTexts(),
            self.progress,
            Breaker(),
            lambda: None,
        )
        assert pipeline.execution is not None
        return Execution(self.context, pipeline.execution, self.sandbox, windows.of_sandbox(self.sandbox))

    def verdicts(self) -> list[pb.Record]:
        return self.dataset.of_kind(pb.KIND_VERDICT)

    async def judge(self, run: Execution) -> pb.Record | None:
        return await run.judge(ITEM, fresh=False)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_verdict_on_the_program_is_found_by_every_run(bench: Bench) -> None:
    bench.will_say(sb.VERDICT_PASSED)
    first = await bench.judge(bench.run(1))
    second = await bench.judge(bench.run(2))
    assert first is not None
    assert first == second
    assert len(bench.sandbox.requests) == 1
    assert first.id in bench.dataset.collections[bench.context.record.id]


@pytest.mark.parametrize("verdict", [sb.VERDICT_TIMED_OUT, sb.VERDICT_OUT_OF_MEMORY])
async def test_a_verdict_on_the_machine_is_the_runs_alone(bench: Bench, verdict: sb.Verdict.ValueType) -> None:
    bench.will_say(verdict, sb.VERDICT_PASSED)
    kept = await bench.judge(bench.run(1))
    assert kept is not None
    assert kept.verdict.result.verdict == verdict
    assert list(kept.parents) == [RESPONSE.id, bench.context.record.id]
    other = await bench.judge(bench.run(2))
    assert other is not None
    assert other.verdict.result.verdict == sb.VERDICT_PASSED, "another run executes it for itself"
    assert await bench.judge(bench.run(1)) == kept, "a run that goes on has its own record"
    assert bench.progress["execution"].reasons == {sb.Verdict.Name(verdict).removeprefix("VERDICT_"): 1}
    assert len(bench.sandbox.requests) == 2


async def test_an_infrastructure_fault_is_recorded_nowhere(bench: Bench) -> None:
    bench.will_say(sb.VERDICT_INFRASTRUCTURE)
    assert await bench.judge(bench.run()) is None
    assert bench.progress["execution"].reasons == {UNDECIDED: 1}
    assert len(bench.sandbox.requests) == calls.INFRASTRUCTURE_TRIES
    assert not bench.verdicts()
    bench.will_say(sb.VERDICT_PASSED)
    assert await bench.judge(bench.run()) is not None


@pytest.mark.parametrize("isolation", [sb.ISOLATION_PROCESS])
async def test_what_ran_without_isolation_is_recorded_nowhere_and_ends_the_run(
    bench: Bench, isolation: sb.Isolation.ValueType
) -> None:
    bench.will_say(sb.VERDICT_PASSED, isolation=isolation, runner="process-1")
    with pytest.raises(RunFailed, match=r"'process-1' runs programs without gVisor isolation"):
        await bench.judge(bench.run())
    assert not bench.verdicts()


async def test_a_refusal_needs_no_isolation_and_no_image(bench: Bench) -> None:
    bench.will_say(sb.VERDICT_REFUSED)
    kept = await bench.judge(bench.run())
    assert kept is not None
    assert bench.progress["execution"].reasons == {"REFUSED": 1}
    assert bench.sandbox.control.calls["get_runner"] == 0


async def test_a_program_that_the_sandbox_does_not_take_is_refused(bench: Bench) -> None:
    bench.sandbox.control.fail("execute", InvalidArgument("program.code", "is 9 MB"))
    kept = await bench.judge(bench.run())
    assert kept is not None
    assert kept.verdict.result.verdict == sb.VERDICT_REFUSED
    assert "is 9 MB" in kept.verdict.result.detail


async def test_another_image_than_the_runs_records_nothing_and_names_both(bench: Bench) -> None:
    bench.sandbox.runner.image_digest = "sha256:" + "2" * 64
    with pytest.raises(RunStopped, match=rf"'runner-1' has image sha256:2+, .* use {IMAGE_DIGEST}.*codealign rejudge"):
        await bench.judge(bench.run())
    assert not bench.verdicts()


async def test_another_python_than_the_runs_records_nothing_and_names_both(bench: Bench) -> None:
    bench.sandbox.runner.python_version = "3.12.1"
    with pytest.raises(RunStopped, match=r"has Python 3\.12\.1, .* use 3\.11\.9"):
        await bench.judge(bench.run())
    assert not bench.verdicts()


async def test_each_runner_is_asked_for_its_python_once(bench: Bench) -> None:
    run = bench.run()
    bench.sandbox.judges = toys.judges
    for number in range(5):
        response = pb.Record(kind=pb.KIND_RESPONSE, parents=[SEED.id], attempt=number, response=pb.Response(code="x"))
        bench.dataset.put(response)
        await run.judge(Item(response, str(number)), fresh=True)
    assert bench.sandbox.control.calls["get_runner"] == 1


async def test_flaky_is_recorded_with_its_runs_and_does_not_pass(bench: Bench) -> None:
    differing = [sb.VERDICT_PASSED, sb.VERDICT_FAILED_ASSERTION, sb.VERDICT_PASSED]
    bench.will_say(sb.VERDICT_FLAKY, run_verdicts=differing, detail="verdicts differ between runs")
    kept = await bench.judge(bench.run(runs=3))
    assert kept is not None
    assert bench.sandbox.requests[0].runs == 3
    assert list(kept.verdict.result.run_verdicts) == differing
    assert list(kept.parents) == [RESPONSE.id]
    tally = bench.progress["execution"]
    assert (tally.kept, tally.reasons) == (0, {"FLAKY": 1})


async def test_flaky_for_a_time_out_says_as_much_of_the_machine(bench: Bench) -> None:
    bench.will_say(sb.VERDICT_FLAKY, run_verdicts=[sb.VERDICT_PASSED, sb.VERDICT_TIMED_OUT])
    kept = await bench.judge(bench.run(runs=2))
    assert kept is not None
    assert list(kept.parents) == [RESPONSE.id, bench.context.record.id]


async def test_a_sandbox_that_is_away_is_waited_for_and_said_so(bench: Bench) -> None:
    run, said = bench.run(), list[str]()
    bench.sandbox.control.fail("execute", *(Unavailable("no runner is there", retry_after=0.0) for _ in range(9)))

    def look(method: str, request: object) -> None:
        if method == "execute":
            said.append(bench.context.store.waiting.text)

    bench.sandbox.control.before = look
    kept = await bench.judge(run)
    assert kept is not None
    assert bench.progress["execution"].retries == 9
    assert "the sandbox service, since" in said[0]
    assert not bench.context.store.waiting.text


async def test_a_sandbox_that_does_not_prove_its_isolation_ends_the_run(bench: Bench) -> None:
    bench.sandbox.control.fail("execute", FailedPrecondition("the isolation check 'network' failed"))
    with pytest.raises(RunFailed, match="sandbox: the isolation check 'network' failed"):
        await bench.judge(bench.run())


async def test_a_sandbox_that_keeps_failing_inside_ends_the_run(bench: Bench) -> None:
    bench.sandbox.control.fail("execute", *(Internal("division by zero") for _ in range(99)))
    with pytest.raises(RunFailed, match="division by zero"):
        await bench.judge(bench.run())
    assert bench.sandbox.control.calls["execute"] == faults.INTERNAL_TRIES


async def test_a_program_that_the_sandbox_keeps_failing_on_ends_no_run_where_it_judges_others(bench: Bench) -> None:
    run = bench.run()
    assert await run.judge(ITEM, fresh=True) is not None
    bench.sandbox.control.fail("execute", *(Internal("division by zero") for _ in range(faults.INTERNAL_TRIES)))
    assert await run.judge(ITEM, fresh=True) is None
    assert bench.progress["execution"].reasons == {UNDECIDED: 1}
    assert await run.judge(ITEM, fresh=True) is not None


async def test_a_fault_after_a_long_outage_is_the_first_one(bench: Bench) -> None:
    away = [Unavailable("restarts", retry_after=0.0) for _ in range(3 * faults.INTERNAL_TRIES)]
    bench.sandbox.control.fail("execute", *away, Internal("starts"))
    assert await bench.judge(bench.run()) is not None


async def test_a_verdict_that_this_release_does_not_know_is_never_recorded(bench: Bench) -> None:
    bench.sandbox.judges = lambda program: sb.Result(verdict=99)  # type: ignore[arg-type]
    with pytest.raises(RunFailed, match="verdict 99, which this release does not know"):
        await bench.judge(bench.run())
    assert verdict_name(99) == "99"  # type: ignore[arg-type]


async def test_a_verdict_in_flight_is_finished_though_the_run_is_to_stop(bench: Bench) -> None:
    run = bench.run()

    def stop() -> None:
        raise RunStopped("paused")

    object.__setattr__(bench.context, "gate", stop)
    assert await bench.judge(run) is not None


async def test_the_window_bounds_programs_at_the_sandbox(bench: Bench) -> None:
    run, go = bench.run(), bench.sandbox.control.hold("execute")
    responses = [
        pb.Record(kind=pb.KIND_RESPONSE, parents=[SEED.id], attempt=number, response=pb.Response(code=f"x = {number}"))
        for number in range(40)
    ]
    bench.dataset.put(*responses)
    tasks = [asyncio.create_task(run.judge(Item(each, each.id), fresh=True)) for each in responses]
    for _ in range(50):
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert bench.sandbox.control.most_in_flight["execute"] == bench.sandbox.slots + 1
