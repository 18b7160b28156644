"""Two rounds on the embedded model: the model tuned in the first writes the second's data, and both models remain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from tests.e2e.commands import codealign
from tests.e2e.test_recorded_run import query, versions

pytestmark = [pytest.mark.gvisor, pytest.mark.slow, pytest.mark.timeout(600)]
ROUNDS = "rounds: {number: 2, stop: {worse_p: 0, pass_rate: 0, diversity: 0}}\n"
"""With so few rows, every rule might stop the series by chance."""


def test_the_second_rounds_rows_lead_back_to_the_first_rounds_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "run.yaml").write_text(ROUNDS)
    home = tmp_path / "home"
    small = ("--n", "6", "--problems", "2", "--max-steps", "2")
    told = codealign(home, "run", "--preset", "nano", "--config", str(tmp_path / "run.yaml"), *small)
    assert "2 of 2 rounds, succeeded" in told
    assert len(versions(home)) == 2
    kinds = f"select kind, count(*) from records where kind in ({pb.KIND_RUN}, {pb.KIND_LOOP}) group by kind"
    assert query(home, kinds) == [(pb.KIND_RUN, 2), (pb.KIND_LOOP, 2)]
    first = re.search(r"^1 +([0-9a-f]{12}) +(v-[0-9a-f]+)", told, re.MULTILINE)
    row = re.search(r"one row, ([0-9a-f]{12})", told)
    assert first is not None
    assert row is not None
    lineage = codealign(home, "data", "lineage", row[1])
    assert f"written by the model tuned on {first[2]} in round 1 (run {first[1]})" in lineage
