"""The service over gRPC: checks with field paths, pages, leases and streams; and as a separate process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from codealign.api.dataset.v1 import dataset_pb2 as wire
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.health import Readiness
from codealign.common.interceptors import ServerInterceptor
from codealign.common.records import complete
from codealign.dataset.service import build
from codealign.dataset.settings import DatasetSettings

if TYPE_CHECKING:
    from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceAsyncStub
    from services.dataset.tests.conftest import Make, Postgres

STATUS = grpc.StatusCode
UNKNOWN = pb.Kind.ValueType(99)


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[DatasetServiceAsyncStub]:
    settings = DatasetSettings(data_dir=tmp_path / "data")
    server = grpc.aio.server(interceptors=[ServerInterceptor(60.0)])
    async with build(settings, Readiness()) as registrations:
        for registration in registrations:
            registration.add(registration.servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield DatasetServiceStub(channel)
        await server.stop(1)


async def refused(call: Any) -> tuple[grpc.StatusCode, list[str]]:
    """Return an RPC's status code and the field paths in it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    paths = []
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it has what is read
    for detail in status.details if status else ():
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            paths += [violation.field for violation in request.field_violations]
    return caught.value.code(), paths


async def invalid(call: Any) -> list[str]:
    code, paths = await refused(call)
    assert code is STATUS.INVALID_ARGUMENT
    return paths


def changed(record: pb.Record, **fields: Any) -> pb.Record:
    copy = pb.Record()
    copy.CopyFrom(record)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


async def test_every_violation_of_an_append_is_named(stub: DatasetServiceAsyncStub, make: Make) -> None:
    seed = make.seed()
    rejection = make.rejection(seed, pb.KIND_RESPONSE)
    rejection.rejection.ClearField("rejected_kind")
    fault = make.verdict(make.response(seed), sandbox_pb2.VERDICT_INFRASTRUCTURE)
    bad_parent = changed(make.concepts(seed), id="")
    bad_parent.parents[0] = "ABC"
    half = pb.Judgement(attempts=[pb.JudgedAttempt()], pairs=[pb.PAIR_RESULT_PASSED] * 2)
    records = [
        seed,
        changed(seed, kind=pb.KIND_UNSPECIFIED),
        changed(seed, kind=99),
        changed(seed, kind=pb.KIND_RESPONSE),
        changed(seed, attempt=-1),
        changed(seed, id="0" * 32),
        changed(seed, content_hash="0" * 64),
        bad_parent,
        changed(make.concepts(seed), stage_config_id="config"),
        changed(rejection, id="", content_hash=""),
        fault,
        make.decision(seed, rule=""),
        changed(seed, key="a\nb"),
        complete(pb.Record(kind=pb.KIND_RUN_REQUEST, parents=[seed.id], run_request=pb.RunRequest())),
        complete(pb.Record(kind=pb.KIND_JUDGEMENT, parents=[seed.id], judgement=half)),
    ]
    paths = await invalid(stub.Append(wire.AppendRequest(records=records)))
    assert paths == [
        "records[1].kind",
        "records[2].kind",
        "records[3].response",
        "records[4].attempt",
        "records[5].id",
        "records[6].content_hash",
        "records[7].parents[0]",
        "records[8].stage_config_id",
        "records[9].rejection.rejected_kind",
        "records[10].verdict.result.verdict",
        "records[11].decision.rule",
        "records[12].key",
        "records[13].run_request.wanted",
        "records[14].judgement.pairs",
    ]
    assert not (await stub.Count(wire.CountRequest())).counts


async def test_limits_of_requests_are_named(stub: DatasetServiceAsyncStub, make: Make) -> None:
    large = changed(make.seed(), id="", content_hash="")
    large.seed.code = "x" * 9 * 2**20
    seed = make.seed()
    too_few = wire.LacksChild(kind=pb.KIND_RESPONSE, attempts=-1)
    cases = [
        (stub.Append(wire.AppendRequest(records=[seed] * 1001)), "records"),
        (stub.Append(wire.AppendRequest(records=[seed], collection="two\nlines")), "collection"),
        (stub.Append(wire.AppendRequest(records=[seed], lease=wire.LeaseToken())), "lease.name"),
        (stub.Scan(wire.ScanRequest(kind=UNKNOWN)), "kind"),
        (stub.Scan(wire.ScanRequest(page_size=1001)), "page_size"),
        (stub.Scan(wire.ScanRequest(page_token="?")), "page_token"),
        (stub.Scan(wire.ScanRequest(lacks_child=wire.LacksChild())), "lacks_child.kind"),
        (
            stub.Scan(wire.ScanRequest(lacks_child=too_few)),
            "lacks_child.attempts",
        ),
        (stub.Scan(wire.ScanRequest(parent_id="abc")), "parent_id"),
        (stub.Get(wire.GetRequest(ids=[seed.id, "abc"])), "ids[1]"),
        (stub.Get(wire.GetRequest(ids=["abcde"], allow_prefix=True)), "ids[0]"),
        (stub.Get(wire.GetRequest(ids=[seed.id] * 1001)), "ids"),
        (stub.Lineage(wire.LineageRequest(id="abc")), "id"),
        (stub.Lineage(wire.LineageRequest(id=seed.id, limit=10_001)), "limit"),
        (stub.Lineage(wire.LineageRequest(id=seed.id, direction=9)), "direction"),  # type: ignore[arg-type]
        (stub.Join(wire.JoinRequest(ids=[seed.id])), "collection"),
        (stub.Join(wire.JoinRequest(collection="run", ids=[seed.id, "abc123"])), "ids[1]"),
        (stub.Join(wire.JoinRequest(collection="run", ids=[seed.id] * 1001)), "ids"),
        (stub.Join(wire.JoinRequest(collection="run", lease=wire.LeaseToken())), "lease.name"),
        (stub.PublishVersion(wire.PublishVersionRequest()), "collection"),
        (stub.PublishVersion(wire.PublishVersionRequest(collection="a", verdicts=[1, 99])), "verdicts[1]"),  # type: ignore[list-item]
        (
            stub.PublishVersion(
                wire.PublishVersionRequest(collection="a", verdicts=[sandbox_pb2.VERDICT_INFRASTRUCTURE])
            ),
            "verdicts[0]",
        ),
        (
            stub.PublishVersion(
                wire.PublishVersionRequest(collection="a", verdicts=[sandbox_pb2.VERDICT_PASSED], not_executed=True)
            ),
            "verdicts",
        ),
        (stub.PublishVersion(wire.PublishVersionRequest(collection="a", promise="sworn")), "promise"),
        (stub.PublishVersion(wire.PublishVersionRequest(collection="a", title="a\nb")), "title"),
        (stub.PublishVersion(wire.PublishVersionRequest(collection="a", facts={"": "x"})), "facts"),
        (stub.AcquireLease(wire.AcquireLeaseRequest(name="a")), "holder"),
        (stub.AcquireLease(wire.AcquireLeaseRequest(name="a", holder="b", ttl_seconds=0.5)), "ttl_seconds"),
        (stub.AcquireLease(wire.AcquireLeaseRequest(name="a", holder="b", ttl_seconds=float("nan"))), "ttl_seconds"),
    ]
    for call, path in cases:
        assert await invalid(call) == [path]


async def test_a_record_over_the_size_limit_is_refused(tmp_path: Path, make: Make) -> None:
    from codealign.common.errors import InvalidArgument
    from codealign.dataset import checks

    with pytest.raises(InvalidArgument, match=r"records\[0\]: is \d+ bytes; at most 10"):
        checks.records([make.seed()], max_bytes=10)


async def test_ids_are_computed_where_they_are_left_out(stub: DatasetServiceAsyncStub, make: Make) -> None:
    seed = make.seed()
    response = await stub.Append(wire.AppendRequest(records=[changed(seed, id="", content_hash="")]))
    assert response.results[0].id == seed.id
    found = await stub.Get(wire.GetRequest(ids=[seed.id[:7]], allow_prefix=True))
    assert list(found.records) == [seed]


async def test_pages_follow_their_tokens(stub: DatasetServiceAsyncStub, make: Make) -> None:
    seeds = [make.seed(number) for number in range(5)]
    await stub.Append(wire.AppendRequest(records=seeds, collection="run"))
    request = wire.ScanRequest(kind=pb.KIND_SEED, collection="run", page_size=2)
    sizes, found = [], []
    while True:
        page = await stub.Scan(request)
        sizes.append(len(page.records))
        found += [record.id for record in page.records]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert sizes == [2, 2, 1]
    assert found == sorted(seed.id for seed in seeds)
    page = await stub.Scan(wire.ScanRequest(kind=pb.KIND_SEED, collection="run", page_size=2))
    other = wire.ScanRequest(kind=pb.KIND_SEED, page_token=page.next_page_token)
    assert await invalid(stub.Scan(other)) == ["page_token"]


async def test_a_run_finds_what_is_left_and_publishes(stub: DatasetServiceAsyncStub, make: Make) -> None:
    chains = [make.chain(number) for number in range(3)]
    await stub.Append(wire.AppendRequest(records=[r for chain in chains for r in chain][:-1], collection="run"))
    lacks = wire.LacksChild(kind=pb.KIND_EXAMPLE)
    left = wire.ScanRequest(kind=pb.KIND_VERDICT, collection="run", lacks_child=lacks)
    assert list((await stub.Scan(left)).records) == [chains[2][4]]
    await stub.Append(wire.AppendRequest(records=[chains[2][5]], collection="run"))
    assert not (await stub.Scan(left)).records
    assert [
        (item.name, item.records) for item in (await stub.ListCollections(wire.ListCollectionsRequest())).collections
    ] == [("run", 18)]

    published = await stub.PublishVersion(wire.PublishVersionRequest(collection="run", facts={"engine": "nano"}))
    assert not published.existed
    version = published.version
    assert version.rows == 3
    assert [file.path for file in version.files] == ["README.md", "data/train-00000-of-00001.parquet"]
    assert abs(version.created_at.ToSeconds() - time.time()) < 60
    again = await stub.PublishVersion(wire.PublishVersionRequest(collection="run"))
    assert again.existed
    assert again.version == version
    assert (await stub.GetVersion(wire.GetVersionRequest(name=version.name))).version == version
    assert list((await stub.ListVersions(wire.ListVersionsRequest())).versions) == [version]

    exported = b"".join([piece.data async for piece in stub.Export(wire.ExportRequest(version=version.name))])
    assert [json.loads(line)["id"] for line in exported.splitlines()] == sorted(chain[5].id for chain in chains)
    lineage = await stub.Lineage(wire.LineageRequest(id=chains[0][5].id, direction=wire.DIRECTION_ANCESTORS))
    assert {record.id for record in lineage.records} == {record.id for record in chains[0]}


async def test_another_runs_records_are_joined_and_counted(stub: DatasetServiceAsyncStub, make: Make) -> None:
    seed, config = make.seed(), make.config()
    made = make.response(seed, config=config.id)
    made.provenance.prompt_tokens, made.provenance.cached_prompt_tokens = 30, 20
    made.provenance.generated_tokens, made.provenance.seconds = 10, 1.5
    await stub.Append(wire.AppendRequest(records=[seed, made], collection="one"))
    lease = (await stub.AcquireLease(wire.AcquireLeaseRequest(name="two", holder="me"))).lease
    token = wire.LeaseToken(name="two", token=lease.token)
    request = wire.JoinRequest(collection="two", ids=[made.id, "0" * 32, seed.id], lease=token)
    assert list((await stub.Join(request)).records) == [made, seed]
    request.ids_only = True
    assert list((await stub.Join(request)).records) == [pb.Record(id=made.id), pb.Record(id=seed.id)]
    counts = (await stub.Count(wire.CountRequest(collection="two"))).counts
    assert list(counts) == [
        wire.RecordCount(kind=pb.KIND_SEED, count=1),
        wire.RecordCount(
            kind=pb.KIND_RESPONSE,
            count=1,
            stage_config_id=config.id,
            prompt_tokens=30,
            cached_prompt_tokens=20,
            generated_tokens=10,
            seconds=1.5,
        ),
    ]
    request.lease.token += 1
    assert (await refused(stub.Join(request)))[0] is STATUS.FAILED_PRECONDITION


async def test_a_version_has_the_verdicts_that_were_asked_for(stub: DatasetServiceAsyncStub, make: Make) -> None:
    seed, concepts, instruction, response, _, _ = make.chain()
    failed = make.verdict(response, sandbox_pb2.VERDICT_FAILED_ASSERTION)
    rows = [seed, concepts, instruction, response, failed, make.example(instruction, response, failed, seed)]
    await stub.Append(wire.AppendRequest(records=rows, collection="failures"))
    request = wire.PublishVersionRequest(collection="failures")
    assert (await refused(stub.PublishVersion(request)))[0] is STATUS.FAILED_PRECONDITION
    request.verdicts.append(sandbox_pb2.VERDICT_FAILED_ASSERTION)
    assert (await stub.PublishVersion(request)).version.rows == 1
    unexecuted = make.example(instruction, response, None, seed)
    await stub.Append(wire.AppendRequest(records=[unexecuted], collection="unexecuted"))
    request = wire.PublishVersionRequest(collection="unexecuted", not_executed=True)
    assert (await stub.PublishVersion(request)).version.rows == 1


async def test_what_is_not_there_is_not_found(stub: DatasetServiceAsyncStub) -> None:
    assert (await refused(stub.GetVersion(wire.GetVersionRequest(name="v-0"))))[0] is STATUS.NOT_FOUND
    assert (await refused(stub.Lineage(wire.LineageRequest(id="0" * 32))))[0] is STATUS.NOT_FOUND
    lease = wire.LeaseToken(name="none", token=1)
    assert (await refused(stub.RenewLease(wire.RenewLeaseRequest(lease=lease))))[0] is STATUS.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Export(wire.ExportRequest(version="v-0")):
            pass
    assert caught.value.code() is STATUS.NOT_FOUND


async def test_a_lost_lease_fences_its_holder_off(stub: DatasetServiceAsyncStub, make: Make) -> None:
    first = (await stub.AcquireLease(wire.AcquireLeaseRequest(name="run", holder="one"))).lease
    assert first.expires_at.ToSeconds() > time.time() + 5
    other = stub.AcquireLease(wire.AcquireLeaseRequest(name="run", holder="two"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await other
    assert caught.value.code() is STATUS.UNAVAILABLE
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it has what is read
    info = error_details_pb2.RetryInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert 5 < info.retry_delay.ToTimedelta().total_seconds() <= 15

    token = wire.LeaseToken(name="run", token=first.token)
    await stub.ReleaseLease(wire.ReleaseLeaseRequest(lease=token))
    second = (await stub.AcquireLease(wire.AcquireLeaseRequest(name="run", holder="two"))).lease
    assert second.token > first.token
    late = wire.AppendRequest(records=[make.seed()], lease=token)
    assert (await refused(stub.Append(late)))[0] is STATUS.FAILED_PRECONDITION
    late.lease.token = second.token
    assert len((await stub.Append(late)).results) == 1


async def test_concurrent_calls_insert_each_record_once(stub: DatasetServiceAsyncStub, make: Make) -> None:
    request = wire.AppendRequest(records=make.chains(30), collection="run")
    responses = await asyncio.gather(*(stub.Append(request) for _ in range(8)))
    outcomes = [result.outcome for response in responses for result in response.results]
    assert outcomes.count(wire.APPEND_OUTCOME_INSERTED) == 180
    assert outcomes.count(wire.APPEND_OUTCOME_EXISTED) == 7 * 180


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    (folder / "endpoint.json").unlink(missing_ok=True)
    variables = {"DATA_DIR": str(folder / "data"), "ENDPOINT_FILE": str(folder / "endpoint.json"), **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "codealign.dataset.main", *arguments],
        env={**os.environ, **{f"CODEALIGN_DATASET_{key}": value for key, value in variables.items()}},
        stderr=(folder / "log").open("ab"),
        stdout=subprocess.DEVNULL,
    )


async def address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 30
    while not (folder / "endpoint.json").exists():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        await asyncio.sleep(0.05)
    return f"127.0.0.1:{json.loads((folder / 'endpoint.json').read_text())['port']}"


async def test_a_killed_process_keeps_every_acknowledged_record(tmp_path: Path, make: Make) -> None:
    process = start(tmp_path)
    acknowledged: list[str] = []

    async def add(channel: grpc.aio.Channel) -> None:
        for number in range(10_000):
            response = await DatasetServiceStub(channel).Append(
                wire.AppendRequest(records=make.chain(number), collection="run")
            )
            acknowledged.extend(result.id for result in response.results)

    async with grpc.aio.insecure_channel(await address(tmp_path, process)) as channel:
        adding = asyncio.create_task(add(channel))
        await asyncio.sleep(0.7)
        process.send_signal(signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError):
            await adding
    process.wait()
    assert len(acknowledged) >= 6

    process = start(tmp_path)
    async with grpc.aio.insecure_channel(await address(tmp_path, process)) as channel:
        stub = DatasetServiceStub(channel)
        for begin in range(0, len(acknowledged), 1000):
            found = await stub.Get(wire.GetRequest(ids=acknowledged[begin : begin + 1000]))
            assert [record.id for record in found.records] == acknowledged[begin : begin + 1000]
        counts = (await stub.Count(wire.CountRequest(collection="run"))).counts
        numbers = {count.count for count in counts}
        assert len(counts) == 6
        assert len(numbers) == 1  # each request is all or nothing
    process.terminate()
    assert process.wait(timeout=30) == 0


async def test_an_unmigrated_postgresql_is_refused_until_it_is_migrated(tmp_path: Path, postgres: Postgres) -> None:
    postgres.create("fresh")
    variables = {"DATABASE_URL": postgres.url_of("fresh")}
    process = start(tmp_path, **variables)
    assert process.wait(timeout=30) == 2
    assert "run `codealign-dataset migrate`" in (tmp_path / "log").read_text()
    assert start(tmp_path, "migrate", **variables).wait(timeout=30) == 0
    process = start(tmp_path, **variables)
    async with grpc.aio.insecure_channel(await address(tmp_path, process)) as channel:
        assert not (await DatasetServiceStub(channel).Count(wire.CountRequest())).counts
    process.terminate()
    assert process.wait(timeout=30) == 0


def test_a_damaged_file_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "records.db").write_bytes(b"garbage" * 1000)
    assert start(tmp_path).wait(timeout=30) == 2
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("codealign-dataset: ")
    assert "damaged" in last


async def test_readiness_follows_the_database(tmp_path: Path, postgres: Postgres, postgres_database: Any) -> None:
    settings = DatasetSettings(data_dir=tmp_path, database_url=postgres.url, probe_seconds=0.05)
    readiness = Readiness()

    async def becomes(ready: bool) -> None:
        async with asyncio.timeout(20):
            while readiness.ready is not ready:  # noqa: ASYNC110 - Readiness announces nothing
                await asyncio.sleep(0.02)

    async with build(settings, readiness):
        await becomes(True)
        await asyncio.to_thread(postgres.stop)
        try:
            await becomes(False)
            assert "is unavailable" in readiness.reason
        finally:
            await asyncio.to_thread(postgres.start)
        await becomes(True)
