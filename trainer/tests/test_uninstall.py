"""Before a release is uninstalled, its FineTuneJobs are deleted."""

from __future__ import annotations

import asyncio

from codealign.trainer.cluster.resource import PLURAL
from codealign.trainer.cluster.uninstall import delete_all
from trainer.tests.fake_cluster import FakeCluster


async def _with_jobs(*names: str) -> FakeCluster:
    cluster = FakeCluster()
    for name in names:
        await cluster.create(PLURAL, {"metadata": {"name": name, "finalizers": ["codealign.dev/files"]}, "spec": {}})
    return cluster


async def test_every_job_is_deleted_once_and_waited_for() -> None:
    cluster = await _with_jobs("a", "b")
    deletion = asyncio.create_task(delete_all(cluster, 20))
    while not all(job["metadata"].get("deletionTimestamp") for job in await cluster.list(PLURAL)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not deletion.done()
    for name in ("a", "b"):
        del cluster.objects[PLURAL, name]  # the operator removes its finalizer
    assert await deletion == []
    assert await cluster.list(PLURAL) == []


async def test_one_that_the_operator_does_not_let_go_of_is_named() -> None:
    assert await delete_all(await _with_jobs("stuck"), 0) == ["stuck"]
    assert await delete_all(await _with_jobs(), 0) == []
