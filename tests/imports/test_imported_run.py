"""A file in the reference's layout is imported, executed and selected; everything lost on the way has a reason.

`selfcodealign.jsonl` is ours: right, wrong, hostile and odd rows in the layout of the published files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.importing.formats import named
from codealign.cli.importing.reading import Tally, local_sources, readable, rows_of
from codealign.cli.importing.rows import Problem
from codealign.coordinator.runs.config import run_records, with_defaults
from fakes import toys
from fakes.sandbox import IMAGE_DIGEST, PYTHON_VERSION
from tests.e2e.commands import codealign

FILE = Path(__file__).with_name("selfcodealign.jsonl")
VERDICTS: Mapping[str, sb.Verdict.ValueType] = {
    "def mirrored": sb.VERDICT_FAILED_ASSERTION,
    "def ratio": sb.VERDICT_RAISED,
    "return n +": sb.VERDICT_SYNTAX_ERROR,
    "def first_word": sb.VERDICT_NO_TESTS,
    "def stop_now": sb.VERDICT_EXITED_EARLY,
    "def forever": sb.VERDICT_TIMED_OUT,
    "def enormous": sb.VERDICT_OUT_OF_MEMORY,
}
"""What gVisor's sandbox says of the programs that fail, by a text of theirs; `test_real_gvisor_agrees` checks it."""


def read() -> tuple[list[pb.Record], list[Problem]]:
    """Return the records of the file, its Import first, and the problems."""
    told: list[Problem] = []
    form = named("selfcodealign")
    (file,) = readable(local_sources(FILE), form, {}, "ODC-By-1.0", told.append)
    made = [file.record]
    for _, records in rows_of(file, form, "ODC-By-1.0", Tally(), told.append):
        made += records
    return list({record.id: record for record in made}.values()), told


def test_every_row_becomes_records_or_a_named_problem() -> None:
    made, told = read()
    assert [(each.row, each.field, each.reason) for each in told] == [
        (19, "instruction", "null"),
        (20, "concepts", "empty"),
        (21, "response", "surrogate"),
        (22, "", "cut-off"),
    ]
    kinds = Counter(record.kind for record in made)
    assert kinds[pb.KIND_IMPORT] == 1
    assert kinds[pb.KIND_INSTRUCTION] == kinds[pb.KIND_RESPONSE] == 17, "rows 1 and 18 are the same"
    assert kinds[pb.KIND_SEED] == 3, "rows share seeds"
    responses = [record.response for record in made if record.kind == pb.KIND_RESPONSE]
    assert {response.license for response in responses} == {"ODC-By-1.0"}
    with_code = [response for response in responses if response.code]
    assert len(with_code) == 16
    for response in with_code:
        assert response.tests
        assert response.tests not in response.answer


def judges(program: sb.Program) -> sb.Result:
    verdict = next((VERDICTS[text] for text in VERDICTS if text in program.code), sb.VERDICT_PASSED)
    return sb.Result(verdict=verdict, assertions_executed=1)


async def test_the_funnel_explains_every_row() -> None:
    run = with_defaults(pb.Run(pipeline="imported", seeds=pb.SeedSelection(collection=toys.SEEDS)))
    run.execution.image_digest, run.execution.python_version = IMAGE_DIGEST, PYTHON_VERSION
    made = toys.Bench(run_records(run)[1])
    made.fakes.dataset.put(*read()[0], collection=toys.SEEDS)
    made.fakes.sandbox.judges = judges
    outcome = await made.work()
    assert made.rejections() == []
    stages = {name: (tally.kept, dict(tally.reasons)) for name, tally in made.progress.stages.items()}
    failed = Counter(sb.Verdict.Name(verdict).removeprefix("VERDICT_") for verdict in VERDICTS.values())
    assert stages == {
        "responses": (16, {"imported.no-code": 1}),
        "execution": (9, dict(failed)),
        "selection": (7, {"row.placeholder": 1, "dedup.response": 1}),
    }
    assert outcome.rows == 7
    for row in made.examples():
        assert [step.stage for step in row.example.lineage] == ["seeds", "concepts", "instructions", "responses"]
        assert row.example.concepts
        assert row.example.license == "ODC-By-1.0"


@pytest.mark.gvisor
@pytest.mark.slow
def test_real_gvisor_agrees(tmp_path: Path) -> None:
    said = codealign(tmp_path, "import", str(FILE), "--format", "selfcodealign", "--collection", "theirs")
    assert "collection theirs: 17 rows new, 1 existing" in said
    said = codealign(tmp_path, "run", "--pipeline", "imported", "--collection", "theirs")
    wanted = Counter(sb.Verdict.Name(verdict).removeprefix("VERDICT_") for verdict in VERDICTS.values())
    (line,) = [line for line in said.splitlines() if line.startswith("verdicts: ")]
    found = dict(part.rsplit(" ", 1) for part in line.removeprefix("verdicts: ").split(", "))
    assert found == {name: str(number) for name, number in {**wanted, "PASSED": 9}.items()}
    (path,) = (tmp_path / "data/versions").glob("v-*/manifest.json")
    manifest = json.loads(path.read_text())
    assert (manifest["rows"], manifest["made"], manifest["imported"]) == (7, 0, 7)
    assert manifest["licenses"] == {"": 7}
