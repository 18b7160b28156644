"""The gateway over real gRPC, with workers in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.common import discovery
from codealign.common.errors import retry_delay, violated_fields
from codealign.inference.engines.simulated import profile

from .workers import (
    BIG,
    NANO,
    Worker,
    gateway,
    generated,
    replicas,
    request,
    until,
    until_generated,
    until_idle,
    until_replica,
    workers,
)


@pytest.fixture(autouse=True)
def _unloading_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect no garbage: nothing here holds a real model's memory."""
    monkeypatch.setattr("codealign.inference.registry.release_memory", lambda: None)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_samples_are_those_of_a_single_server_and_a_prefix_group_has_one_worker() -> None:
    async with workers(NANO, slots=64) as there, gateway(there) as stub:
        asked = [request(f"### Task {number}", 4, prefix_key="group") for number in range(5)]
        texts = [await generated(stub, each) for each in asked]
        used = [worker for worker in there if worker.samples]
        assert [worker.samples for worker in used] == [20]
        assert len(used[0].servicer.asked) == 5, "the samples of a request go in one call"
        async with grpc.aio.insecure_channel(there[0].address) as channel:
            alone: Any = InferenceServiceStub(channel)
            assert texts == [await generated(alone, each) for each in asked]


async def test_requests_without_a_prefix_key_use_all_workers() -> None:
    async with workers(NANO, slots=4) as there, gateway(there) as stub:
        await asyncio.gather(*(generated(stub, request(f"### {number}", 4)) for number in range(20)))
        assert all(worker.samples > 5 for worker in there)
        assert sum(worker.samples for worker in there) == 80


async def test_the_models_answer_as_one_server_with_the_state_of_each_worker() -> None:
    async with workers(NANO, count=2, slots=8) as there, gateway(there) as stub:
        (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
        assert (model.name, model.engine, model.slots, model.context_length) == (NANO, "simulated", 16, 1024)
        assert {each.state for each in model.replicas} == {pb.REPLICA_STATE_READY}
        assert (await stub.GetModel(pb.GetModelRequest())).model == model
        counts = await stub.CountTokens(pb.CountTokensRequest(texts=["a b c", ""]))
        assert counts.counts[0] > 0
        await generated(stub, request(count=3))
        load = await stub.GetLoad(pb.GetLoadRequest())
        assert (load.slots, load.running, load.waiting) == (16, 0, 0)
        assert load.prompt_tokens > 0
        wrong = await refused(generated(stub, request(expected_revision="x")))
        assert wrong.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "not x: load that revision" in (wrong.details() or "")


async def test_errors_of_a_request_are_those_of_a_single_server() -> None:
    async with workers(NANO, count=2) as there, gateway(there) as stub:
        empty = await refused(generated(stub, request("")))
        assert violated_fields(empty) == ["prompt"]
        long = await refused(generated(stub, request("word " * 10_000)))
        assert long.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_fields(long) == ["prompt"], "the worker's details are passed on"
        unknown = await refused(generated(stub, request(model="other")))
        assert unknown.code() is grpc.StatusCode.NOT_FOUND
        assert "loaded: nano" in (unknown.details() or "")
        itself = await refused(stub.SyncModels(pb.SyncModelsRequest()))
        assert itself.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_model_is_loaded_by_all_workers_and_by_one_that_joins_and_unloaded_by_all() -> None:
    async with workers(NANO) as there:
        await there[2].stop()
        async with gateway(there) as stub:
            answer = await stub.LoadModel(pb.LoadModelRequest(source=BIG, name="big"))
            assert (answer.model.name, answer.model.source) == ("big", BIG)
            again = await stub.LoadModel(pb.LoadModelRequest(source=BIG, name="big"))
            assert again.model.revision == answer.model.revision
            await until(lambda: all("big" in worker.loaded for worker in there[:2]))
            await there[2].start()
            await until(lambda: there[2].loaded == {NANO, "big"})
            taken = await refused(stub.LoadModel(pb.LoadModelRequest(source=NANO, name="big")))
            assert taken.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "in use by" in (taken.details() or "")
            missing = await refused(stub.LoadModel(pb.LoadModelRequest(source="/no/such/profile", name="x")))
            assert missing.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert (missing.details() or "").startswith("worker 127.0.0.1:")
            assert violated_fields(missing) == ["source"]
            await stub.UnloadModel(pb.UnloadModelRequest(name="big"))
            assert all(worker.loaded == {NANO} for worker in there)
            gone = await refused(stub.UnloadModel(pb.UnloadModelRequest(name="big")))
            assert gone.code() is grpc.StatusCode.NOT_FOUND


async def test_a_restarted_gateway_and_a_second_one_know_the_same_models() -> None:
    async with workers(NANO, count=2) as there:
        async with gateway(there) as stub:
            await stub.LoadModel(pb.LoadModelRequest(source=BIG, name="big"))
            await stub.UnloadModel(pb.UnloadModelRequest(name=NANO))
        async with gateway(there) as stub, gateway(there) as second:
            for each in (stub, second):
                listed = await each.ListModels(pb.ListModelsRequest())
                assert [model.name for model in listed.models] == ["big"]
            await there[0].stop()
            await there[0].start(NANO)  # as if it were configured there
            await until(lambda: there[0].loaded == {"big"})
            await generated(second, request(model="big"))


async def test_requests_of_a_model_that_is_unloaded_end_and_are_told_to_try_again() -> None:
    async with workers(NANO, count=1) as there, gateway(there) as stub:
        there[0].servicer.mode = "hang"
        call = asyncio.create_task(generated(stub, request()))
        await until(lambda: there[0].samples == 1)
        assert (await replicas(stub, NANO))[there[0].address].in_flight == 1
        await stub.UnloadModel(pb.UnloadModelRequest(name=NANO))
        error = await refused(call)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert retry_delay(error)


@pytest.mark.parametrize("mode", ["garbage", "twice", "short", "internal", "busy", "hang"])
async def test_what_a_faulty_worker_does_not_answer_well_another_one_answers(mode: str) -> None:
    async with workers(NANO, slots=4) as there, gateway(there, worker_silence_seconds=1.0) as stub:
        there[1].servicer.mode = mode
        asked = [request(f"### {number}", 3) for number in range(12)]
        texts = await asyncio.gather(*(generated(stub, each) for each in asked))
        there[1].servicer.mode = ""
        assert texts == [await generated(stub, each) for each in asked]
        state = (await replicas(stub, NANO))[there[1].address]
        if mode in ("garbage", "hang"):
            assert state.state == pb.REPLICA_STATE_UNAVAILABLE
            assert "set aside for 30 s" in state.reason


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("slots", "it has 2147483647 slots for nano"),
        ("revision", "it has model 'nano' at revision ''"),
        ("version", "it keeps version 9223372036854775807 of what is wanted for model 'nano'"),
    ],
)
async def test_a_report_that_cannot_be_true_makes_its_worker_unavailable_and_harms_no_other(
    mode: str, reason: str
) -> None:
    async with workers(NANO, count=2) as there, gateway(there) as stub:
        await until_generated(stub, request(count=4))
        there[1].servicer.mode = mode
        replica = await until_replica(stub, NANO, there[1], pb.REPLICA_STATE_UNAVAILABLE)
        assert replica.reason == f"its report is invalid: {reason}"
        assert (await stub.GetLoad(pb.GetLoadRequest())).slots == 8
        await generated(stub, request(count=4))
        await stub.UnloadModel(pb.UnloadModelRequest(name=NANO))
        assert not there[0].loaded


async def test_a_worker_that_stops_in_the_middle_loses_nothing() -> None:
    async with workers(NANO, slots=4) as there, gateway(there) as stub:
        there[0].servicer.mode = "hang"
        calls = [asyncio.create_task(generated(stub, request(f"### {number}", 3))) for number in range(12)]
        await until(lambda: there[0].samples > 0)
        await there[0].stop()
        await asyncio.gather(*calls)
        await there[0].start(NANO)
        await generated(stub, request())


async def test_with_all_workers_gone_callers_are_told_to_try_again_and_why() -> None:
    async with workers(NANO, count=2) as there, gateway(there, worker_wait_seconds=0.3) as stub:
        for worker in there:
            await worker.stop()
        error = await refused(generated(stub, request()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert retry_delay(error)
        assert all(worker.address in (error.details() or "") for worker in there)
        (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
        assert (model.name, model.slots) == (NANO, 0)
        await there[1].start(NANO)
        await until_replica(stub, NANO, there[1], pb.REPLICA_STATE_READY)
        await generated(stub, request())


@pytest.mark.parametrize("method", ["LoadModel", "CountTokens", "UnloadModel"])
async def test_callers_get_an_answer_when_the_address_of_the_worker_that_they_wait_for_is_gone(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: set[str] = set()

    async def resolve(target: discovery.Target) -> set[str]:
        return {f"{target.host}:{target.port}"} - gone

    monkeypatch.setattr(discovery, "_resolve", resolve)
    requests = {
        "LoadModel": pb.LoadModelRequest(source=NANO),
        "CountTokens": pb.CountTokensRequest(model=NANO, texts=["a"]),
        "UnloadModel": pb.UnloadModelRequest(name=NANO),
    }
    async with workers(NANO, count=1) as there, gateway(there, worker_resolve_seconds=0.05) as stub:
        there[0].servicer.mode = "stuck"
        call = asyncio.ensure_future(getattr(stub, method)(requests[method], timeout=30))
        await asyncio.sleep(0.3)
        assert not call.done()
        gone.add(there[0].address)
        if method == "UnloadModel":  # It is recorded. The worker unloads the model when it comes back.
            await call
        else:
            error = await refused(call)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert f"worker {there[0].address}: its address is gone" in (error.details() or "")
            assert retry_delay(error) is not None
        there[0].servicer.mode = ""


async def test_samples_wait_for_a_worker_that_comes_later() -> None:
    async with workers(NANO, count=1) as there, gateway(there) as stub:
        await there[0].stop()
        call = asyncio.create_task(generated(stub, request()))
        await asyncio.sleep(0.3)
        assert not call.done()
        await there[0].start(NANO)
        await call


async def test_a_worker_with_other_weights_is_not_used_and_says_so() -> None:
    other = Worker(seed=7)
    async with workers(NANO, count=2) as there:
        try:
            await other.start(NANO)
            async with gateway([*there, other]) as stub:
                await asyncio.gather(*(generated(stub, request(f"### {number}", 5)) for number in range(20)))
                assert other.samples == 0
                state = (await replicas(stub, NANO))[other.address]
                assert state.state == pb.REPLICA_STATE_REFUSED
                assert f"of {NANO}, not" in state.reason
        finally:
            await other.stop()


async def test_a_worker_with_too_little_memory_for_a_model_says_so_and_the_others_serve_it() -> None:
    small = Worker(too_big=frozenset({BIG}))
    async with workers(NANO, count=2) as there:
        try:
            await small.start(NANO)
            async with gateway([*there, small]) as stub:
                await stub.LoadModel(pb.LoadModelRequest(source=BIG, name="big"))
                await until(lambda: all("big" in worker.loaded for worker in there))
                state = await until_replica(stub, "big", small, pb.REPLICA_STATE_REFUSED)
                assert "needs about 30.0 GB but only 10.0 GB are free" in state.reason
                await generated(stub, request(model="big"))
        finally:
            await small.stop()


async def test_a_full_queue_refuses_with_a_delay() -> None:
    async with workers(NANO, count=1, slots=1) as there, gateway(there, max_waiting=5) as stub:
        there[0].servicer.mode = "hang"
        calls = [asyncio.create_task(generated(stub, request(f"### {number}"))) for number in range(7)]
        await until(lambda: there[0].samples == 2)
        await asyncio.sleep(0.2)
        error = await refused(generated(stub, request("### one more", 3)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_delay(error)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until_idle(stub)


async def test_a_model_in_the_gateways_settings_is_loaded_by_workers_without_one() -> None:
    async with workers(count=2) as there:
        async with gateway(there, model=NANO, engine="simulated") as stub:
            await until(lambda: all(worker.loaded == {NANO} for worker in there))
            await until_generated(stub, request())


async def test_of_two_loads_of_one_name_at_the_same_time_one_source_gets_it() -> None:
    async with workers(count=2) as there, gateway(there) as stub:
        for worker in there:
            worker.servicer.may_load.clear()
        first = asyncio.ensure_future(stub.LoadModel(pb.LoadModelRequest(source=NANO, name="m")))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(stub.LoadModel(pb.LoadModelRequest(source=BIG, name="m")))
        await asyncio.sleep(0.1)
        for worker in there:
            worker.servicer.may_load.set()
        error = await refused(second)
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"model name m is in use by {NANO}, which is being loaded" in (error.details() or "")
        model = (await first).model
        await until(lambda: all(worker.loaded == {"m"} for worker in there))
        assert [each.revision for worker in there for each in worker.models.models] == [model.revision] * 2


async def test_a_name_that_a_worker_chooses_for_a_source_does_not_replace_another_model(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    text = (profile.FOLDER / "nano.json").read_text()
    one.write_text(text)
    other.write_text(text + "\n")
    async with workers(count=2) as there, gateway(there) as stub:
        there[1].too_big.add(str(one))
        served = (await stub.LoadModel(pb.LoadModelRequest(source=str(one)))).model
        await until_replica(stub, NANO, there[1], pb.REPLICA_STATE_REFUSED)
        error = await refused(stub.LoadModel(pb.LoadModelRequest(source=str(other))))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"model name {NANO} is in use by {one}" in (error.details() or "")
        assert not there[1].loaded, "what was loaded in vain is unloaded"
        assert (await stub.GetModel(pb.GetModelRequest(name=NANO))).model.revision == served.revision
        await generated(stub, request(expected_revision=served.revision))


async def test_a_model_that_is_being_loaded_for_the_first_time_is_unloaded_afterwards() -> None:
    async with workers(count=2) as there, gateway(there) as stub:
        for worker in there:
            worker.servicer.may_load.clear()
        loading = asyncio.ensure_future(stub.LoadModel(pb.LoadModelRequest(source=NANO, name="m")))
        await asyncio.sleep(0.1)
        unloading = asyncio.ensure_future(stub.UnloadModel(pb.UnloadModelRequest(name="m")))
        await asyncio.sleep(0.1)
        for worker in there:
            worker.servicer.may_load.set()
        assert (await loading).model.name == "m"
        await unloading
        await until(lambda: not any(worker.loaded for worker in there))
        assert not (await stub.ListModels(pb.ListModelsRequest())).models


async def test_calls_do_not_wait_for_a_worker_that_hangs() -> None:
    async with workers(NANO, count=2) as there, gateway(there, worker_lost_seconds=0.5) as stub:
        await generated(stub, request())
        there[0].servicer.mode = "stuck"
        async with asyncio.timeout(9):  # less than an inquiry takes to fail
            counts = await stub.CountTokens(pb.CountTokensRequest(texts=["a b c"]))
            assert len(counts.counts) == 1
            await stub.LoadModel(pb.LoadModelRequest(source=BIG, name="big"))
            await stub.UnloadModel(pb.UnloadModelRequest(name="big"))
            there[1].servicer.mode = "stuck"
            error = await refused(stub.LoadModel(pb.LoadModelRequest(source=BIG, name="big")))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert retry_delay(error)
        assert "has not responded for" in (error.details() or "")
        for worker in there:
            worker.servicer.mode = ""


@pytest.mark.parametrize("mode", ["gone", "garbage"])
async def test_tokens_that_a_worker_does_not_count_well_another_one_counts(mode: str) -> None:
    async with workers(NANO, count=2) as there, gateway(there) as stub:
        asked = pb.CountTokensRequest(texts=["a b c", ""])
        counts = (await stub.CountTokens(asked)).counts
        there[0].servicer.mode = mode
        assert (await stub.CountTokens(asked)).counts == counts


async def test_a_gateway_whose_model_workers_know_from_another_source_says_so() -> None:
    async with workers(count=1) as there:
        async with gateway(there) as stub:
            await stub.LoadModel(pb.LoadModelRequest(source=NANO, name="m"))
            await until(lambda: there[0].loaded == {"m"})
        with capture_logs() as logged:
            async with gateway(there, model=BIG, model_name="m", engine="simulated") as stub:
                (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
        assert model.source == NANO
        (told,) = [event for event in logged if event["event"] == "configured_model_not_served"]
        assert (told["configured"], told["served"]) == (BIG, NANO)
