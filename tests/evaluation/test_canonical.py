"""Some canonical solutions with several callers; `make canonical` sends all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import gateways
from tests.evaluation import canonical


@pytest.mark.gvisor
@pytest.mark.slow
def test_canonical_solutions_pass_and_functions_without_a_body_do_not(benchmark_data: Path) -> None:
    problems, _ = canonical.prepared(benchmark_data, every=40)
    assert len(problems) >= 10
    with gateways.own_cache() as cache, gateways.started(cache, 2, 1) as gateway:
        outcome = canonical.send(gateway, problems, callers=8)
    assert outcome.wrong == []
    assert sum(counted.total() for counted in outcome.verdicts.values()) == len(problems) * len(canonical.BODIES)
