"""A peer that disappears is detected; one that is only silent is left alone."""

from __future__ import annotations

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


@pytest.mark.slow
async def test_a_server_that_is_stopped_is_noticed_long_before_the_deadline(start: Start) -> None:
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


@pytest.mark.slow
async def test_a_call_that_is_silent_for_longer_than_several_pings_is_left_alone(start: Start) -> None:
    async with Clients(Addresses(sandbox=start().address)) as clients:
        assert await execute(clients, "sleep-42") == "sleep-42"
