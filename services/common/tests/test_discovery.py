"""Targets in settings; what is found is tested where it is used, with real servers."""

from __future__ import annotations

import asyncio
import socket

import pytest

from codealign.common import discovery
from codealign.common.discovery import Discovery, Target, parse
from codealign.common.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("runners.sandbox.svc:7410", Target("runners.sandbox.svc", 7410)),
        ("dns:///runners:7410", Target("runners", 7410)),
        ("[::1]:7410", Target("::1", 7410)),
    ],
)
def test_a_target_is_a_host_and_a_port(text: str, target: Target) -> None:
    assert parse(text, "CODEALIGN_X_TARGET") == target


@pytest.mark.parametrize(
    "text",
    [
        *("runners", "dns:///runners", "runners:", ":7410", "runners:http", "runners:70000"),
        *("http://runners:7410", "runners 1:7410", "runners..svc:7410", f"{'x' * 64}:7410"),
    ],
)
def test_what_is_no_target_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="CODEALIGN_X_TARGET: must be host:port"):
        parse(text, "CODEALIGN_X_TARGET")


class Places:
    """Notes which addresses are in use."""

    def __init__(self) -> None:
        self.places: set[str] = set()

    def keep(self, address: str) -> None:
        self.places.add(address)

    async def drop(self, address: str, drain_seconds: float) -> None:
        self.places.discard(address)


async def test_a_name_that_cannot_be_resolved_keeps_its_addresses_and_does_not_hold_up_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"a": {"10.0.0.1:1"}, "b": {"10.0.0.2:1"}}
    failing = {"b"}

    async def resolve(target: Target) -> set[str]:
        if target.host in failing:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return names[target.host]

    monkeypatch.setattr(discovery, "_resolve", resolve)
    places = Places()
    finder = Discovery([Target("a", 1), Target("b", 1)], places, 0.01, 0.0)
    running = asyncio.ensure_future(finder.run())

    async def until(addresses: set[str]) -> None:
        async with asyncio.timeout(30):
            while places.places != addresses:  # noqa: ASYNC110 (other tasks change it)
                await asyncio.sleep(0.005)

    await until({"10.0.0.1:1"})
    assert not finder.looked_up.is_set(), "more may be there"
    failing.clear()
    await until({"10.0.0.1:1", "10.0.0.2:1"})
    assert finder.looked_up.is_set()
    failing.add("b")
    names["a"] = {"10.0.0.3:1"}
    await until({"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"})
    failing.clear()
    await until({"10.0.0.2:1", "10.0.0.3:1"})
    running.cancel()
