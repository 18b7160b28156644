"""`make test-gpu`: the table, the reasons of skips and the time limits, which need no GPU."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.gpu import check
from tests.gpu.check import PARTS, ROOT, Part, Row

JUNIT = """<testsuites><testsuite>
<testcase name="test_good" time="1.25">
<properties><property name="detail" value="16 of 16 identical"/></properties></testcase>
<testcase name="test_bad" time="2.5"><failure message="assert 1 == 2&#10;more">trace</failure></testcase>
<testcase name="test_away" time="0.0"><skipped message="no NVIDIA GPU here"/></testcase>
<testcase name="test_broken" time="0.1"><error message="fixture failed"/></testcase>
</testsuite></testsuites>"""


def parts(*names: str, limit: float = 60.0) -> list[Part]:
    return [Part(name, f"tests/gpu/test_{name}.py", limit) for name in names]


def test_every_test_has_its_result_its_time_and_why() -> None:
    assert check.rows_of("vllm", JUNIT) == [
        Row("vllm", "test_good", "passed", 1.25, "16 of 16 identical"),
        Row("vllm", "test_bad", "failed", 2.5, "assert 1 == 2 more"),
        Row("vllm", "test_away", "skipped", 0.0, "no NVIDIA GPU here"),
        Row("vllm", "test_broken", "failed", 0.1, "fixture failed"),
    ]


def test_the_table_ends_with_the_counts() -> None:
    lines = check.table(check.rows_of("vllm", JUNIT)).splitlines()
    assert lines[0].split() == ["part", "test", "result", "seconds", "detail"]
    assert lines[1].split() == ["vllm", "test_good", "passed", "1.2", "16", "of", "16", "identical"]
    assert lines[-1] == "1 passed, 2 failed, 1 skipped, 0 timed out in 4 s"
    assert len({line.index("test_") for line in lines[1:5]}) == 1


@pytest.mark.parametrize(
    ("results", "expected"),
    [(["passed", "skipped"], False), (["passed", "failed"], True), (["timed out"], True), ([], False)],
)
def test_skips_are_no_failure(results: list[str], expected: bool) -> None:
    assert check.failed([Row("a", "b", result, 0.0) for result in results]) == expected


def test_parts_that_no_time_is_left_for_are_skipped_with_the_reason() -> None:
    limits: list[float] = []

    def run(part: Part, junit: Path, limit: float) -> bool:
        limits.append(limit)
        junit.write_text(JUNIT)
        time.sleep(0.2)
        return True

    rows = check.check(parts("one", "two"), run, budget=check.FEWEST_SECONDS + 0.1)
    assert limits == [pytest.approx(check.FEWEST_SECONDS + 0.1, abs=0.1)], "less than the part's own limit"
    assert (rows[-1].part, rows[-1].result) == ("two", "skipped")
    assert rows[-1].detail == "20 s of 20 s are left"


def test_a_part_that_does_not_end_is_reported() -> None:
    [row] = check.check(parts("slow"), lambda part, junit, limit: False)
    assert (row.result, row.detail[:18]) == ("timed out", "its limit is 60 s;")


def test_a_part_without_results_failed() -> None:
    [row] = check.check(parts("none"), lambda part, junit, limit: True)
    assert row.result == "failed"
    assert check.rows_of("none", "<testsuites><testsuite/></testsuites>")[0].detail == "no test was collected"


def test_what_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    assert not check.ended_within(["sh", "-c", f"sleep 600 & echo $! > {child}; wait"], 3.0)
    end = time.monotonic() + 30
    while Path(f"/proc/{child.read_text().strip()}/cmdline").exists():  # until it is reaped
        assert time.monotonic() < end, "the child is still there"
        time.sleep(0.05)
    assert check.ended_within(["true"], 30.0)


def test_the_parts_exist_and_fit_the_rented_time() -> None:
    assert all((ROOT / part.path).is_file() for part in PARTS)
    files = {path.name for path in (ROOT / "tests/gpu").glob("test_*.py")}
    assert files == {Path(part.path).name for part in PARTS}
    # transformers is skipped where vLLM is, and training where there is no time left.
    assert PARTS[0].limit + PARTS[2].limit <= check.BUDGET_SECONDS
