"""The long measurements in small: `make soak` runs them in full."""

from __future__ import annotations

import pytest

from tests import gateways
from tests.chaos import kill_runners, soak

pytestmark = [pytest.mark.gvisor, pytest.mark.slow]


def test_every_verdict_is_right_with_hostile_programs_among_them() -> None:
    with gateways.own_cache() as cache:
        found = soak.run(150, callers=4, runners=1, slots=2, share=0.1, seed=7, cache=cache)
    soak.report(found, runners=1)
    assert found.tally.wrong == []
    assert found.left == []
    assert found.tally.done == 150
    assert found.looks


def test_killed_runners_change_no_verdict() -> None:
    with gateways.own_cache() as cache:
        found = kill_runners.run(150, kills=3, every=1.5, callers=4, runners=2, seed=7, cache=cache)
    kill_runners.report(found)
    assert found.tally.wrong == []
    assert found.left == []
    assert found.kills >= 3
    assert found.tally.done >= 150
