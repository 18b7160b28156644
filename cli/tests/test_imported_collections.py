"""Runs of imported collections: where they are named, which services start, and how lineage shows them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.commands import run
from codealign.cli.connection import Target
from codealign.cli.failures import Failure
from codealign.cli.family import Family, load_family
from codealign.cli.home import Home
from codealign.cli.importing.format import Node
from codealign.cli.importing.formats import named
from codealign.cli.importing.records import import_record, row_records
from codealign.cli.lineage import lineage_tree
from codealign.cli.loop import LoopChoices
from codealign.cli.records_view import record_view
from codealign.cli.run_config import RunChoices, run_config, writes
from codealign.cli.run_file import RunFile
from codealign.cli.stack import DATA_SERVICES, NO_INFERENCE, UNWRITTEN_SERVICES, Options, specs

IMPORTED = api.Pipeline(name="imported")
IMPORTED.stages.add(name="responses", role=api.STAGE_ROLE_SEEDS, makes=pb.KIND_RESPONSE)
IMPORTED.stages.add(name="execution", role=api.STAGE_ROLE_EXECUTION, makes=pb.KIND_VERDICT, parent="responses")
IMPORTED.stages.add(name="selection", role=api.STAGE_ROLE_SELECTION, makes=pb.KIND_EXAMPLE, parent="execution")


def work(home: Home, *, seeds: str = "", collection: str = "") -> run._Work:
    choices, loop = RunChoices(pipeline="imported"), LoopChoices("data", None, (), benchmarks_named=False)  # type: ignore[arg-type]
    return run._Work(Target(home), Options(), Options(), choices, seeds, collection, True, loop, RunFile())


@pytest.mark.parametrize(("seeds", "collection"), [("", "theirs"), ("theirs", ""), ("stdlib", "theirs")])
def test_a_pipeline_of_imports_takes_a_collection_by_either_option(home: Home, seeds: str, collection: str) -> None:
    given = work(home, seeds=seeds, collection=collection)
    run._choose_collection(given, IMPORTED)
    assert (given.collection, given.seeds) == ("theirs", "")


@pytest.mark.parametrize("seeds", ["", "stdlib", "."])
def test_a_pipeline_of_imports_reads_no_python_files(home: Home, seeds: str) -> None:
    with pytest.raises(Failure, match="takes imported records, not files: name their collection with --collection"):
        run._choose_collection(work(home, seeds=seeds), IMPORTED)


def test_a_pipeline_of_seeds_still_refuses_a_path_that_is_not_there(home: Home, pipeline: api.Pipeline) -> None:
    with pytest.raises(Failure, match="--seeds: no such file or directory: nowhere"):
        run._choose_collection(work(home, seeds="nowhere"), pipeline)
    there = work(home, seeds=".")
    run._choose_collection(there, pipeline)
    assert there.seeds == "."


def test_a_run_of_imports_names_no_model_and_no_stage(pipeline: api.Pipeline) -> None:
    assert writes(pipeline)
    assert not writes(IMPORTED)
    config = run_config(RunChoices(pipeline="imported", strategy="everything"), "theirs", "", IMPORTED)
    assert (config.model.model, list(config.stages), config.seeds.collection) == ("", [], "theirs")


def test_without_a_writing_stage_a_coordinator_works_without_an_inference_service(tmp_path: Path) -> None:
    made = {spec.name: spec for spec in specs(Home(tmp_path), Options(), UNWRITTEN_SERVICES)}
    assert set(made) == {"dataset", "sandbox", "coordinator"}
    environment = made["coordinator"].environment
    assert environment["CODEALIGN_COORDINATOR_INFERENCE_ADDRESS"] == NO_INFERENCE
    assert "CODEALIGN_COORDINATOR_READS_ONLY" not in environment
    assert set(made["coordinator"].needs) == {"dataset", "sandbox"}
    usual = {spec.name: spec for spec in specs(Home(tmp_path), Options(), DATA_SERVICES)}["coordinator"]
    assert "CODEALIGN_COORDINATOR_INFERENCE_ADDRESS" not in usual.environment


def imported() -> tuple[pb.Record, list[pb.Record]]:
    source = import_record("theirs.jsonl", "0" * 64, 10, named("rows"), {"instruction": "problem"}, "")
    nodes = [
        Node(pb.Instruction(text="Write one()."), None),
        Node(pb.Response(answer="one", code="def one(): return 1", license="MIT"), 0),
        Node(pb.Response(answer="two", code="def one(): return 2", license="MIT"), 0),
    ]
    return source, row_records(nodes, source)


def test_an_import_is_shown_with_its_columns() -> None:
    source, _ = imported()
    console = Console(width=120)
    with console.capture() as capture:
        console.print(record_view(source))
    assert re.search(r"columns\s+instruction problem", capture.get())
    assert "theirs.jsonl" in capture.get()


def test_several_responses_of_a_row_have_one_parent_and_their_own_ids() -> None:
    source, (instruction, *responses) = imported()
    assert [list(each.parents) for each in responses] == [[instruction.id]] * 2
    assert len({each.id for each in responses}) == 2
    assert {each.response.imported_from for each in responses} == {source.id}


async def test_lineage_says_what_was_imported_from_where(store) -> None:  # type: ignore[no-untyped-def]
    source, (instruction, first, second) = imported()
    store.add(source, instruction, first, second)
    family: Family = await load_family(store, first.id)
    assert set(family.records) == {instruction.id, first.id, second.id}
    console = Console(width=120)
    with console.capture() as capture:
        console.print(lineage_tree(family))
    text = capture.get()
    assert f"imported from theirs.jsonl ({source.id[:12]}), licence MIT" in text
    assert text.count("imported from theirs.jsonl") >= 2
