"""Versions: their rows, their bytes, and that partial ones are never visible."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pyarrow.parquet as pq
import pytest
import yaml

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.errors import ConfigurationError, FailedPrecondition, NotFound, ResourceExhausted
from codealign.common.records import complete
from codealign.dataset.publishing import table
from codealign.dataset.publishing.card import Description
from codealign.dataset.publishing.folders import VersionFolders
from codealign.dataset.publishing.publisher import DATA_FILE, Publisher
from codealign.dataset.publishing.table import Admitted
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make

PLAIN = Description(title="", promise="replayable", facts={})
FACTS = Description(title='Nano | "first"', promise="reproducible", facts={"engine": "nano", "note": "a|b\nc"})


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_has_the_examples_by_id_with_their_seeds(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    append(database, make.chains(5), collection="run")
    append(database, make.chain(6), collection="other")
    version, existed = publisher.publish("run", FACTS)
    assert not existed
    assert (version.rows, version.title, version.collection) == (5, FACTS.title, "run")
    assert abs(version.created_at - time.time()) < 60
    folder = tmp_path / "versions" / version.name
    assert publisher.url(version.name) == f"file://{folder}"
    rows = pq.read_table(folder / DATA_FILE).to_pylist()
    assert [row["id"] for row in rows] == sorted(make.chain(number)[-1].id for number in range(5))
    by_seed = {row["seed_path"]: row for row in rows}
    seed, *_, example = make.chain(3)
    row = by_seed["lib/m3.py"]
    assert (row["id"], row["seed_code"], row["seed_line"]) == (example.id, seed.seed.code, 4)
    assert (row["concepts"], row["seed_license"]) == (["addition", "naïveté"], "MIT")
    assert row["lineage"] == [{"stage": s.stage, "id": s.record_id} for s in example.example.lineage]
    assert (row["verdict"], row["verdict_id"]) == ("PASSED", example.example.verdict_id)
    assert publisher.all_versions() == [version]
    assert publisher.get(version.name) == version


def test_the_manifest_has_each_files_hash_and_no_trace_of_when_and_where(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    append(database, make.chains(2), collection="5eedc0ffee" * 3)
    version, _ = publisher.publish("5eedc0ffee" * 3, PLAIN)
    files = files_of(tmp_path / "versions" / version.name)
    assert sorted(files) == ["README.md", DATA_FILE, "manifest.json"]
    manifest = json.loads(files["manifest.json"])
    assert [(file["path"], file["sha256"], file["size_bytes"]) for file in manifest["files"]] == [
        (path, hashlib.sha256(files[path]).hexdigest(), len(files[path])) for path in ("README.md", DATA_FILE)
    ]
    assert manifest["format"] == "codealign.version.v4"
    assert (manifest["rows"], manifest["executed"], manifest["verdicts"]) == (2, True, {"PASSED": 2})
    assert version.name == f"v-{manifest['content_sha256'][:16]}"
    assert not [path for path, content in files.items() if b"5eedc0ffee" in content]
    assert version.title == "5eedc0ffee" * 3


def test_the_card_says_counts_facts_and_promise(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    append(database, make.chains(3), collection="run")
    version, _ = publisher.publish("run", FACTS)
    card = (tmp_path / "versions" / version.name / "README.md").read_text()
    assert 'pretty_name: "Nano | \\"first\\""' in card
    assert "| all | 3 |" in card
    assert "| engine | nano |" in card
    assert "| note | a\\|b c |" in card
    assert "| verdict PASSED | 3 |" in card
    assert "| seeds | 3 |" in card
    assert ", reproducible: " in card
    assert "made by CodeAlign. Each response passed its tests in a gVisor sandbox." in card
    assert "so does replaying the recorded completions and verdicts." in card


def test_the_card_explains_the_columns_of_compared_rows_where_there_are_some(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    append(database, make.chains(2), collection="plain")
    *rest, example = make.chain(9)
    example.example.judgement_id, example.example.attempts = "ab" * 16, 3
    example.id = example.content_hash = ""
    append(database, [*make.chains(2), *rest, complete(example)], collection="compared")
    cards = {}
    for name in ("plain", "compared"):
        version, _ = publisher.publish(name, PLAIN)
        cards[name] = (tmp_path / "versions" / version.name / "README.md").read_text()
    assert "| compared with other attempts | 1 |" in cards["compared"]
    for column in ("attempts", "class_size", "tests_share", "mutation_score", "surviving_mutants", "added_tests"):
        assert f"`{column}`" in cards["compared"]
        assert f"`{column}`" not in cards["plain"]


def test_a_version_says_how_many_rows_were_imported_from_where_and_under_which_licences(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    sources = [make.import_source(name) for name in ("theirs.jsonl", "others|.parquet")]
    append(database, [*make.chains(2), *sources], collection="run")
    for number, (source, license_id) in enumerate([(0, "MIT"), (0, ""), (0, "MIT"), (1, "Apache-2.0")], 10):
        *rest, example = make.chain(number)
        example.example.imported_from, example.example.license = sources[source].id, license_id
        example.id = example.content_hash = ""
        append(database, [*rest, complete(example)], collection="run")
    version, _ = publisher.publish("run", PLAIN)
    files = files_of(tmp_path / "versions" / version.name)
    manifest = json.loads(files["manifest.json"])
    assert (manifest["rows"], manifest["made"], manifest["imported"]) == (6, 2, 4)
    assert manifest["licenses"] == {"": 1, "Apache-2.0": 1, "MIT": 2}
    assert {one["name"]: (one["rows"], one["licenses"]) for one in manifest["imports"]} == {
        "theirs.jsonl": (3, {"": 1, "MIT": 2}),
        "others|.parquet": (1, {"Apache-2.0": 1}),
    }
    assert {one["id"]: one["sha256"] for one in manifest["imports"]} == {
        each.id: each.import_source.sha256 for each in sources
    }
    card = files["README.md"].decode()
    assert "2 that a model wrote here, and 4 that others published." in card
    assert "| imported | 4 |" in card
    assert f"| theirs.jsonl (`{sources[0].id[:12]}`) | rows | 3 | unknown 1, MIT 2 |" in card
    assert "| others\\|.parquet" in card
    assert "Replaying the recorded completions, imports and verdicts" in card
    rows = pq.read_table(tmp_path / "versions" / version.name / DATA_FILE).to_pylist()
    assert sorted((row["imported_from"], row["license"]) for row in rows) == sorted(
        [("", "")] * 2 + [(sources[0].id, "MIT")] * 2 + [(sources[0].id, ""), (sources[1].id, "Apache-2.0")]
    )


def test_rows_made_here_from_imported_instructions_are_counted_by_licence(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    source = make.import_source()
    append(database, [source, *make.chains(1)], collection="run")
    for number, license_id in enumerate(["MIT", "", "MIT"], 1):
        seed = make.seed(number)
        given = make.instruction(seed)
        given.parents[:] = []
        given.id = given.content_hash = ""
        given.instruction.license, given.provenance.import_id = license_id, source.id
        response = make.response(complete(given))
        verdict = make.verdict(response)
        example = make.example(given, response, verdict, seed)
        del example.example.lineage[0]
        example.example.license, example.id, example.content_hash = license_id, "", ""
        append(database, [given, response, verdict, complete(example)], collection="run")
    version, _ = publisher.publish("run", PLAIN)
    files = files_of(tmp_path / "versions" / version.name)
    manifest = json.loads(files["manifest.json"])
    assert (manifest["made"], manifest["imported"], manifest["imports"]) == (4, 0, [])
    assert manifest["licenses"] == {"": 1, "MIT": 2}
    card = files["README.md"].decode()
    assert "| licence of imported text MIT | 2 |" in card
    assert "| licence of imported text unknown | 1 |" in card


def test_a_row_whose_import_is_missing_is_not_published(database: Database, publisher: Publisher, make: Make) -> None:
    *rest, example = make.chain()
    example.example.imported_from = "ab" * 16
    example.id = example.content_hash = ""
    append(database, [*rest, complete(example)], collection="run")
    with pytest.raises(FailedPrecondition, match="is no Import in the store"):
        publisher.publish("run", PLAIN)


def with_verdicts(make: Make, *verdicts: sandbox_pb2.Verdict.ValueType | None) -> list[pb.Record]:
    """Return rows with one seed each and these verdicts. None: never executed."""
    records = []
    for number, found in enumerate(verdicts):
        seed, concepts, instruction, response, _, _ = make.chain(number)
        verdict = make.verdict(response, found) if found is not None else None
        records += [seed, concepts, instruction, response, *([verdict] if verdict else [])]
        records.append(make.example(instruction, response, verdict, seed))
    return records


def test_a_version_of_failures_says_so_in_rows_card_and_manifest(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    failed, raised = sandbox_pb2.VERDICT_FAILED_ASSERTION, sandbox_pb2.VERDICT_RAISED
    append(database, with_verdicts(make, failed, raised, failed), collection="run")
    about = Description("", "replayable", {"pipeline": "selfcodealign"})
    with pytest.raises(FailedPrecondition, match="is RAISED, not PASSED or FAILED_ASSERTION"):
        publisher.publish("run", about, Admitted(frozenset({sandbox_pb2.VERDICT_PASSED, failed})))
    version, _ = publisher.publish("run", about, Admitted(frozenset({failed, raised})))
    folder = tmp_path / "versions" / version.name
    assert sorted(pq.read_table(folder / DATA_FILE)["verdict"].to_pylist()) == [
        "FAILED_ASSERTION",
        "FAILED_ASSERTION",
        "RAISED",
    ]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["executed"], manifest["verdicts"]) == (True, {"FAILED_ASSERTION": 2, "RAISED": 1})
    card = (folder / "README.md").read_text()
    assert "made by CodeAlign's pipeline `selfcodealign`." in card
    assert "and not all passed: the column `verdict` says what came of it (FAILED_ASSERTION 2, RAISED 1)." in card
    assert "passed its tests" not in card
    assert "what the response passed" not in card


def test_a_version_whose_rows_were_never_executed_says_so(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    append(database, with_verdicts(make, None, None), collection="run")
    version, _ = publisher.publish("run", PLAIN, Admitted(not_executed=True))
    folder = tmp_path / "versions" / version.name
    rows = pq.read_table(folder / DATA_FILE).to_pylist()
    assert [(row["verdict"], row["verdict_id"]) for row in rows] == [("NOT_EXECUTED", "")] * 2
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["executed"], manifest["verdicts"]) == (False, {"NOT_EXECUTED": 2})
    card = (folder / "README.md").read_text()
    assert "Nothing was executed: no response has a verdict, and whether it is right is not known." in card
    assert "recorded completions gives these rows again" in card
    assert "passed" not in card
    assert "gVisor" not in card


def test_an_executed_row_is_refused_where_none_was_to_be_executed(
    database: Database, publisher: Publisher, make: Make
) -> None:
    records = with_verdicts(make, None, sandbox_pb2.VERDICT_PASSED)
    append(database, records, collection="run")
    with pytest.raises(FailedPrecondition, match=f"example {records[-1].id} has a verdict"):
        publisher.publish("run", PLAIN, Admitted(not_executed=True))
    assert publisher.all_versions() == []


def test_a_row_that_began_with_something_else_than_a_seed_has_empty_seed_columns(
    database: Database, publisher: Publisher, make: Make
) -> None:
    _, concepts, instruction, response, verdict, _ = chain = make.chain()
    example = make.example(instruction, response, verdict, concepts)
    append(database, [*chain[:5], example], collection="run")
    version, _ = publisher.publish("run", PLAIN)
    (row,) = [json.loads(line) for line in b"".join(publisher.export_jsonl(version.name)).splitlines()]
    assert (row["seed_code"], row["seed_path"], row["seed_line"], row["seed_license"]) == ("", "", 0, "")
    assert row["lineage"][0]["id"] == concepts.id


def test_a_card_holds_the_characters_of_its_title(sqlite_database: Database, make: Make, tmp_path: Path) -> None:
    append(sqlite_database, make.chain(), collection="run")
    publisher = Publisher(sqlite_database, VersionFolders(str(tmp_path / "versions"), tmp_path))
    version, _ = publisher.publish("run", Description("Größer 🙂", "replayable", {"note": "🎉"}))
    files = files_of(tmp_path / "versions" / version.name)
    card, manifest = (files[name].decode() for name in ("README.md", "manifest.json"))
    _, front, rest = card.split("---\n", 2)
    assert yaml.safe_load(front)["pretty_name"] == "Größer 🙂"
    assert "Größer 🙂" in front
    assert "| note | 🎉 |" in rest
    assert "Größer 🙂" in manifest
    assert "\\ud83d" not in card + manifest


HOSTILE = (
    "a|b\\|c <script>x</script> ![i](http://e) [l](javascript:x) `k` *b* _u_ a_b &lt; \u202e\x1b[2J\r# h\u2028\n- l"
)
SHOWN = (
    r"a\|b\\\|c \<script\>x\</script\> !\[i\](http://e) \[l\](javascript:x) \`k\` \*b\* \_u\_ a_b \&lt; "
    r"⟨U+202E⟩⟨U+001B⟩\[2J # h - l"
)


def test_a_card_shows_hostile_texts_and_does_nothing_else(
    sqlite_database: Database, make: Make, tmp_path: Path
) -> None:
    source = make.import_source("[x](http://e).jsonl")
    *rest, example = make.chain()
    example.example.imported_from, example.example.license = source.id, HOSTILE
    example.id = example.content_hash = ""
    append(sqlite_database, [source, *rest, complete(example)], collection="run")
    publisher = Publisher(sqlite_database, VersionFolders(str(tmp_path / "versions"), tmp_path))
    about = Description(HOSTILE, "replayable", {"pipeline": "a`b<i>", "note": HOSTILE})
    version, _ = publisher.publish("run", about)
    card = (tmp_path / "versions" / version.name / "README.md").read_bytes().decode()
    _, front, shown = card.split("---\n", 2)
    assert yaml.safe_load(front)["pretty_name"] == HOSTILE
    assert shown.startswith(f"\n# {SHOWN}\n\n")
    assert f"| note | {SHOWN} |\n" in shown
    assert f"| licence of imported text {SHOWN} | 1 |\n" in shown
    assert f"| \\[x\\](http://e).jsonl (`{source.id[:12]}`) | rows | 1 | {SHOWN} 1 |" in shown
    assert "CodeAlign's pipeline a\\`b\\<i\\>. " in shown


def test_large_rows_are_written_and_exported_in_parts(
    sqlite_database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        *rest, example = make.chain(number)
        example.example.response = f"{number}\0\u2028" * 200_000
        example.id = example.content_hash = ""
        append(sqlite_database, [*rest, complete(example)], collection="run")
    names, groups = set(), []
    for limit in (2**30, 5 * 2**20):
        monkeypatch.setattr(table, "ROW_GROUP_BYTES", limit)
        folder = tmp_path / str(limit)
        publisher = Publisher(sqlite_database, VersionFolders(str(folder), tmp_path))
        version, _ = publisher.publish("run", PLAIN)
        names.add(version.name)
        groups.append(pq.ParquetFile(folder / version.name / DATA_FILE).num_row_groups)
    assert (len(names), groups) == (1, [1, 2])
    pieces = list(publisher.export_jsonl(version.name))
    assert max(map(len, pieces)) == 2**20
    rows = [json.loads(line) for line in b"".join(pieces).split(b"\n") if line]
    assert [row["response"][:2] for row in rows] == [row["seed_path"][5] + "\0" for row in rows]
    assert {len(row["response"]) for row in rows} == {600_000}


def test_equal_rows_give_equal_bytes_whatever_the_order_and_the_database(
    sqlite_database: Database, postgres_database: Database, make: Make, tmp_path: Path
) -> None:
    contents = []
    for number, database in enumerate((sqlite_database, postgres_database)):
        chains = [make.chain(index) for index in range(300)]
        random.Random(number).shuffle(chains)
        for chain in chains:
            for record in chain:
                record.provenance.created_at.GetCurrentTime()
        for start in range(0, 300, 100):
            append(database, [record for chain in chains[start : start + 100] for record in chain], collection="run")
        root = tmp_path / str(number)
        version, _ = Publisher(database, VersionFolders(str(root), root)).publish("run", FACTS)
        contents.append((version.name, files_of(root)))
    assert contents[0] == contents[1]


def test_publishing_the_same_rows_again_writes_nothing(
    database: Database, publisher: Publisher, make: Make, tmp_path: Path
) -> None:
    append(database, make.chains(2), collection="run")
    append(database, make.chains(2), collection="again")
    first, _ = publisher.publish("run", PLAIN)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "versions").rglob("*")}
    second, existed = publisher.publish("again", FACTS)
    assert existed
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "versions").rglob("*")} == before


def test_other_rows_are_another_version(database: Database, publisher: Publisher, make: Make) -> None:
    append(database, make.chains(2), collection="run")
    first, _ = publisher.publish("run", PLAIN)
    append(database, make.chain(2), collection="run")
    second, existed = publisher.publish("run", PLAIN)
    assert not existed
    assert [version.name for version in publisher.all_versions()] == [second.name, first.name]


def test_several_publishers_at_once_make_one_version(sqlite_database: Database, make: Make, tmp_path: Path) -> None:
    append(sqlite_database, make.chains(20), collection="run")
    root = tmp_path / "versions"
    publishers = [Publisher(sqlite_database, VersionFolders(str(root), root)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda publisher: publisher.publish("run", PLAIN), publishers))
    assert len({version.name for version, _ in results}) == 1
    assert [existed for _, existed in results].count(False) == 1
    assert [path.name for path in root.iterdir()] == [results[0][0].name]


def test_nothing_to_publish_is_said(database: Database, publisher: Publisher, make: Make, tmp_path: Path) -> None:
    append(database, [make.seed()], collection="run")
    with pytest.raises(FailedPrecondition, match="nothing to publish"):
        publisher.publish("run", PLAIN)
    assert list((tmp_path / "versions").iterdir()) == []


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("process", "without gVisor"),
        ("unspecified isolation", "without gVisor"),
        ("failed", "is FAILED_ASSERTION, not PASSED"),
        ("missing", "has no verdict"),
        ("another's", "not to its response"),
        ("no seed", "is not in the store"),
        ("no lineage", "has no lineage"),
    ],
)
def test_a_row_without_an_isolated_pass_is_refused_by_name(
    sqlite_database: Database, make: Make, tmp_path: Path, case: str, said: str
) -> None:
    seed, concepts, instruction, response, verdict, _ = make.chain()
    other = make.response(instruction, 1)
    if case == "process":
        verdict = make.verdict(response, isolation=sandbox_pb2.ISOLATION_PROCESS)
    elif case == "unspecified isolation":
        verdict = make.verdict(response, isolation=sandbox_pb2.ISOLATION_UNSPECIFIED)
    elif case == "failed":
        verdict = make.verdict(response, sandbox_pb2.VERDICT_FAILED_ASSERTION)
    elif case == "another's":
        verdict = make.verdict(other)
    named = pb.Record(id="0" * 32) if case == "missing" else verdict
    example = make.example(instruction, response, named, pb.Record(id="1" * 32) if case == "no seed" else seed)
    del example.parents[1]
    if case == "no lineage":
        example.example.ClearField("lineage")
        example.content_hash = ""
    from codealign.common.records import complete

    append(
        sqlite_database,
        [*make.chain(1), seed, concepts, instruction, response, other, verdict, complete(example)],
        collection="run",
    )
    publisher = Publisher(sqlite_database, VersionFolders(str(tmp_path / "versions"), tmp_path))
    with pytest.raises(FailedPrecondition, match=said) as caught:
        publisher.publish("run", PLAIN)
    assert example.id in caught.value.message
    assert publisher.all_versions() == []
    assert list((tmp_path / "versions").iterdir()) == []


@pytest.mark.parametrize(
    "point", ["in the rows", "in the card", "in the manifest", "before the rename", "after the rename"]
)
def test_a_kill_while_publishing_leaves_no_half_version(
    sqlite_database: Database, make: Make, tmp_path: Path, point: str
) -> None:
    append(sqlite_database, make.chains(3), collection="run")
    root = tmp_path / "versions"
    script = Path(__file__).parent / "kill_publish.py"
    url = str(sqlite_database.engine.url)
    done = subprocess.run([sys.executable, str(script), url, str(root), point], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    publisher = Publisher(sqlite_database, VersionFolders(str(root), root))
    assert publisher.all_versions() == []
    whole = [folder for folder in root.iterdir() if not folder.name.startswith(".")]
    assert [len(files_of(folder)) for folder in whole] == ([3] if point == "after the rename" else [])

    version, existed = publisher.publish("run", PLAIN)
    assert existed == (point == "after the rename")
    manifest = json.loads((root / version.name / "manifest.json").read_text())
    for file in manifest["files"]:
        content = (root / version.name / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert publisher.all_versions() == [version]


def test_what_a_kill_left_is_swept_after_a_day(sqlite_database: Database, make: Make, tmp_path: Path) -> None:
    append(sqlite_database, make.chain(), collection="run")
    root = tmp_path / "versions"
    old, young = root / ".partial-old", root / ".partial-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    Publisher(sqlite_database, VersionFolders(str(root), root)).publish("run", PLAIN)
    assert (old.exists(), young.exists()) == (False, True)


def test_on_object_storage_a_folder_without_a_manifest_is_no_version(
    sqlite_database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(sqlite_database, make.chains(2), collection="run")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    publisher = Publisher(sqlite_database, VersionFolders("memory://bucket/versions", tmp_path / "scratch"))
    put = memory.put_file
    sent: list[str] = []

    def dies_late(source: str, target: str) -> None:
        if len(sent) == 2:
            raise SystemExit("killed")
        sent.append(target)
        put(source, target)

    monkeypatch.setattr(type(memory), "put_file", staticmethod(dies_late))
    with pytest.raises(SystemExit):
        publisher.publish("run", PLAIN)
    assert sent
    assert not [path for path in sent if path.endswith("manifest.json")]
    assert publisher.all_versions() == []
    monkeypatch.undo()
    version, existed = publisher.publish("run", PLAIN)
    assert not existed
    assert publisher.url(version.name) == f"memory:///bucket/versions/{version.name}"
    assert b"".join(publisher.export_jsonl(version.name)).count(b"\n") == 2
    assert publisher.publish("run", PLAIN) == (version, True)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_datasets_loads_a_version_without_our_code(
    sqlite_database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(sqlite_database, make.chains(3), collection="run")
    root = tmp_path / "versions"
    version, _ = Publisher(sqlite_database, VersionFolders(str(root), root)).publish("run", FACTS)
    code = (
        "import sys, datasets\n"
        "rows = datasets.load_dataset(sys.argv[1], split='train')\n"
        "assert 'codealign' not in ' '.join(sys.modules), 'our code'\n"
        "print(rows.num_rows, rows[0]['concepts'], rows.column_names[:3])\n"
        "print([step['stage'] for step in rows[0]['lineage']], {len(step['id']) for step in rows[0]['lineage']})"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(root / version.name)],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "3 ['addition', 'naïveté'] ['id', 'instruction', 'response']",
        "['seeds', 'instructions', 'responses'] {32}",
    ]


def test_exports_give_the_same_rows(database: Database, publisher: Publisher, make: Make, tmp_path: Path) -> None:
    append(database, make.chains(4), collection="run")
    version, _ = publisher.publish("run", PLAIN)
    lines = b"".join(publisher.export_jsonl(version.name)).decode().splitlines()
    data = tmp_path / "versions" / version.name / DATA_FILE
    assert [json.loads(line) for line in lines] == pq.read_table(data).to_pylist()
    assert b"".join(publisher.export_parquet(version.name)) == data.read_bytes()


def test_a_version_that_is_not_there_is_not_found(database: Database, publisher: Publisher, make: Make) -> None:
    with pytest.raises(NotFound, match="v-0"):
        next(publisher.export_jsonl("v-0"))
    append(database, make.chain(), collection="run")
    version, _ = publisher.publish("run", PLAIN)
    shutil.rmtree(publisher.url(version.name).removeprefix("file://"))
    with pytest.raises(NotFound, match="publish it again"):
        next(publisher.export_parquet(version.name))
    assert publisher.publish("run", PLAIN) == (version, False)


def test_a_full_disk_is_said_and_leaves_nothing(
    sqlite_database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(sqlite_database, make.chain(), collection="run")
    root = tmp_path / "versions"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("codealign.dataset.publishing.publisher._write_text", full)
    with pytest.raises(ResourceExhausted, match="free space"):
        Publisher(sqlite_database, VersionFolders(str(root), root)).publish("run", PLAIN)
    assert list(root.iterdir()) == []


def test_a_place_that_cannot_be_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for url in ("nowhere://bucket", str(tmp_path / "file" / "versions")):
        with pytest.raises(ConfigurationError, match=url):
            VersionFolders(url, tmp_path)
