"""Targets in settings; what is found is tested where it is used, with real servers."""

from __future__ import annotations

import pytest

from codealign.common.discovery import Target, parse
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


@pytest.mark.parametrize("text", ["runners", "dns:///runners", "runners:", ":7410", "runners:http", "runners:70000"])
def test_what_is_no_target_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="CODEALIGN_X_TARGET: must be host:port"):
        parse(text, "CODEALIGN_X_TARGET")
