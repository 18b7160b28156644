"""A peer that disappears is detected; one that is only silent is left alone."""

from __future__ import annotations

import asyncio
import os
import signal

import grpc
import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.clients import NO_RETRY, Addresses, Clients, RetryPolicy

from .conftest import Start

DEADLINE = 120.0


async def execute(clients: Clients, wish: str, retry: RetryPolicy = NO_RETRY) -> str:
    request = pb.ExecuteRequest(request_id=wish)
    return (await clients.call(clients.sandbox.Execute, request, timeout=DEADLINE, retry=retry)).result.request_id


async def notices_that_a_server_is_stopped(start: Start) -> None:
    served = start()
    async with Clients(Addresses(sandbox=served.address)) as clients:
        assert await execute(clients, "first") == "first"
        os.kill(served.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await execute(clients, "second")
        finally:
            os.kill(served.process.pid, signal.SIGCONT)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, "not DEADLINE_EXCEEDED"
        # The channel reconnects.
        assert await execute(clients, "third", RetryPolicy(attempts=0)) == "third"


async def leaves_a_silent_call_alone(start: Start) -> None:
    async with Clients(Addresses(sandbox=start().address)) as clients:
        # A server that did not permit the pings would end the connection at the third.
        assert await execute(clients, "sleep-42") == "sleep-42"


@pytest.mark.slow
async def test_a_stopped_server_is_noticed_long_before_the_deadline_and_a_silent_one_is_left_alone(
    start: Start,
) -> None:
    async with asyncio.TaskGroup() as meanwhile:  # both wait most of the time
        meanwhile.create_task(leaves_a_silent_call_alone(start))
        meanwhile.create_task(notices_that_a_server_is_stopped(start))
