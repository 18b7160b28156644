"""`codealign import`: files of every kind, whatever is wrong with them, become records or named problems."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import dataset_pb2_grpc as rpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.commands import imports
from codealign.cli.failures import Failure
from codealign.cli.importing import files, hub, storing
from codealign.cli.importing.formats import formats
from codealign.cli.importing.rows import REASONS
from codealign.cli.main import app
from codealign.common.errors import InvalidArgument
from codealign.common.records import complete, content_hash

ANSWER = "Like this.\n\n```python\ndef double(x):\n    return 2 * x\n```\n\n```python\nassert double(2) == 4\n```"
GOOD = {"problem": "Write double(x), which returns twice its argument.", "solution": ANSWER, "lang": "python"}


class Dataset(rpc.DatasetServiceServicer):
    """The store's rules for appending, in memory."""

    def __init__(self) -> None:
        self.records: dict[str, pb.Record] = {}
        self.collections: dict[str, set[str]] = {}
        self.requests: list[int] = []
        self.refused = "\0"
        """Records with this text are refused."""

    async def Append(self, request: ds.AppendRequest, context: object) -> ds.AppendResponse:
        self.requests.append(len(request.records))
        if len(request.records) > 1000:
            raise InvalidArgument("records", f"{len(request.records)} records; at most 1000 in one call")
        known = set(self.records)
        for number, record in enumerate(request.records):
            given = record.id
            assert complete(record).id == given
            assert set(record.parents) <= known
            known.add(record.id)
            if self.refused in record.response.answer:
                raise InvalidArgument(f"records[{number}]", "is 9 bytes; at most 8")
        results = []
        for record in request.records:
            existed = record.id in self.records
            self.records.setdefault(record.id, record)
            self.collections.setdefault(request.collection, set()).add(record.id)
            outcome = ds.APPEND_OUTCOME_EXISTED if existed else ds.APPEND_OUTCOME_INSERTED
            results.append(ds.AppendResult(id=record.id, outcome=outcome))
        return ds.AppendResponse(results=results)

    def of_kind(self, kind: pb.Kind.ValueType) -> list[pb.Record]:
        return [record for record in self.records.values() if record.kind == kind]


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch, serving: Callable[..., Any]) -> Dataset:
    servicer = Dataset()  # type: ignore[abstract]  # what is not called is not there
    connected = serving(dataset=lambda server: rpc.add_DatasetServiceServicer_to_server(servicer, server))
    monkeypatch.setattr(imports, "services", connected)
    return servicer


def run(path: object, *options: str, fmt: str = "rows") -> Result:
    return CliRunner().invoke(app, ["import", str(path), "--format", fmt, *options])


def lines(path: Path, *rows: object) -> Path:
    """Write JSON Lines. Bytes are written as they are."""
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))
    return path


def problems(path: Path, tmp_path: Path, *options: str, fmt: str = "rows") -> list[tuple[int, str, str]]:
    """Import a file, and return the row, the field and the reason of each problem."""
    told = tmp_path / "problems.jsonl"
    run(path, "--problems", str(told), *options, fmt=fmt)
    found = [json.loads(line) for line in told.read_text().splitlines()]
    assert all(each["reason"] in REASONS and each["detail"] and each["file"] == path.name for each in found)
    return [(each["row"], each["field"], each["reason"]) for each in found]


def test_a_row_becomes_an_instruction_and_a_response_that_name_their_file(dataset: Dataset, tmp_path: Path) -> None:
    result = run(lines(tmp_path / "oss.jsonl", GOOD), "--license", "MIT", "--collection", "theirs")
    assert result.exit_code == 0, result.output
    assert "columns instruction=problem, response=solution, language=lang (OSS-Instruct's layout" in result.output
    assert "collection theirs: 1 rows new, 0 existing" in result.output
    (source,) = dataset.of_kind(pb.KIND_IMPORT)
    (instruction,) = dataset.of_kind(pb.KIND_INSTRUCTION)
    (response,) = dataset.of_kind(pb.KIND_RESPONSE)
    assert (source.import_source.name, source.import_source.format) == ("oss.jsonl", "rows")
    assert source.import_source.sha256 == files.sha256(tmp_path / "oss.jsonl")
    assert dict(source.import_source.columns) == {"instruction": "problem", "response": "solution", "language": "lang"}
    assert (instruction.instruction.text, instruction.instruction.license) == (GOOD["problem"], "MIT")
    assert list(response.parents) == [instruction.id]
    assert response.key == content_hash(response)
    assert response.response.code == "def double(x):\n    return 2 * x\n"
    assert response.response.tests == "assert double(2) == 4\n"
    assert response.response.answer.endswith("return 2 * x\n```")
    assert (response.response.license, response.response.imported_from) == ("MIT", source.id)
    assert {record.provenance.import_id for record in (instruction, response)} == {source.id}
    assert dataset.collections == {"theirs": set(dataset.records)}


def test_importing_again_changes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    path = lines(tmp_path / "oss.jsonl", *({**GOOD, "problem": f"Task {number}."} for number in range(40)))
    first = run(path)
    before = {key: record.SerializeToString() for key, record in dataset.records.items()}
    second = run(path)
    assert "40 rows new, 0 existing" in first.output
    assert "0 rows new, 40 existing" in second.output
    assert {key: record.SerializeToString() for key, record in dataset.records.items()} == before
    assert len(dataset.collections) == 1, "the collection's name is the same"


def test_an_interrupted_import_continues(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path / "oss.jsonl", *({**GOOD, "problem": f"Task {number}."} for number in range(40)))
    monkeypatch.setattr(storing, "MOST_RECORDS", 10)
    whole = Dataset.Append

    async def stops(self: Dataset, request: ds.AppendRequest, context: object) -> ds.AppendResponse:
        if len(self.requests) == 3:
            raise InvalidArgument("lease", "the disk is gone")
        return await whole(self, request, context)

    monkeypatch.setattr(Dataset, "Append", stops)
    assert run(path).exit_code == 1
    kept = len(dataset.of_kind(pb.KIND_RESPONSE))
    assert 0 < kept < 40
    monkeypatch.setattr(Dataset, "Append", whole)
    assert f"{40 - kept} rows new, {kept} existing" in run(path).output
    assert max(dataset.requests) <= 10


def test_a_row_that_occurs_twice_is_one_record(dataset: Dataset, tmp_path: Path) -> None:
    assert "1 rows new, 2 existing" in run(lines(tmp_path / "a.jsonl", GOOD, GOOD, {**GOOD, "index": 7})).output
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 1


def test_the_same_row_of_two_files_keeps_both_origins_and_licences(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    lines(tmp_path / "both/a.jsonl", {**GOOD, "license": "MIT"})
    lines(tmp_path / "both/b.jsonl", {**GOOD, "license": "Apache-2.0"})
    run(tmp_path / "both", "--license", "CC0-1.0")
    found = {record.response.license: record.response.imported_from for record in dataset.of_kind(pb.KIND_RESPONSE)}
    names = {record.id: record.import_source.name for record in dataset.of_kind(pb.KIND_IMPORT)}
    assert {license_id: names[source] for license_id, source in found.items()} == {
        "MIT": "a.jsonl",
        "Apache-2.0": "b.jsonl",
    }


def test_a_row_with_a_seed_and_concepts_keeps_its_whole_line(dataset: Dataset, tmp_path: Path) -> None:
    run(lines(tmp_path / "a.jsonl", {**GOOD, "seed": "def f(x):\n    return x\n", "concepts": ["doubling", "ints"]}))
    (response,) = dataset.of_kind(pb.KIND_RESPONSE)
    line, at = [], response
    while at.parents:
        at = dataset.records[at.parents[0]]
        line.append(at)
    assert [record.kind for record in line] == [pb.KIND_INSTRUCTION, pb.KIND_CONCEPT_SET, pb.KIND_SEED]
    assert (line[2].seed.name, line[2].seed.path) == ("f", "a.jsonl")
    assert list(line[1].concept_set.concepts) == ["doubling", "ints"]


def test_a_response_in_another_language_has_no_code_to_execute(dataset: Dataset, tmp_path: Path) -> None:
    run(lines(tmp_path / "a.jsonl", {**GOOD, "lang": "rust", "solution": "```\nfn main() {}\n```"}))
    (response,) = dataset.of_kind(pb.KIND_RESPONSE)
    assert (response.response.code, response.response.tests) == ("", "")


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"instruction": "Sum a list.", "input": "[1, 2]", "output": "3"}, "instruction=instruction, response=output"),
        ({"instruction": "Sum a list.", "response": "3"}, "instruction=instruction, response=response"),
        ({"prompt": "Sum a list.", "completion": "3"}, "instruction=prompt, response=completion"),
        ({"question": "Sum a list.", "answer": "3"}, "instruction=question, response=answer"),
    ],
)
def test_common_layouts_are_recognized_and_said(
    row: dict[str, str], mapping: str, dataset: Dataset, tmp_path: Path
) -> None:
    result = run(lines(tmp_path / "a.jsonl", row))
    assert mapping in result.output
    (instruction,) = dataset.of_kind(pb.KIND_INSTRUCTION)
    assert instruction.instruction.text == ("Sum a list.\n\n[1, 2]" if "input" in row else "Sum a list.")


def test_a_mapping_of_the_user_wins(dataset: Dataset, tmp_path: Path) -> None:
    row = {"task": "Write one(), which returns 1.", "out": "def one():\n    return 1\n", "check": "assert one() == 1"}
    result = run(lines(tmp_path / "a.jsonl", row), "--columns", "instruction=task,response=out,tests=check")
    assert result.exit_code == 0, result.output
    (response,) = dataset.of_kind(pb.KIND_RESPONSE)
    assert (response.response.code, response.response.tests) == (row["out"], row["check"])


def test_a_column_that_only_late_rows_have_is_read(dataset: Dataset, tmp_path: Path) -> None:
    common = {"problem": "Double.", "solution": "2 * x"}
    rows = [{**common, "problem": f"Task {number}."} for number in range(150)]
    late = {**common, "license": "GPL-3.0", "lang": "rust", "question": "Another layout's."}
    result = run(lines(tmp_path / "a.jsonl", *rows, late), "--license", "MIT")
    assert "columns instruction=problem, response=solution, language=lang, license=license (OSS-" in result.output
    licenses = [record.response.license for record in dataset.of_kind(pb.KIND_RESPONSE)]
    assert (licenses.count("MIT"), licenses.count("GPL-3.0")) == (150, 1)
    given = run(tmp_path / "a.jsonl", "--columns", "instruction=problem,response=solution,category=question")
    assert given.exit_code == 0, given.output


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("instruction", "must be role=column"),
        ("instruction=a,instruction=b", "given twice"),
        ("colour=a", "reads no 'colour'; it reads: instruction"),
    ],
)
def test_a_wrong_mapping_is_refused(columns: str, said: str, dataset: Dataset, tmp_path: Path) -> None:
    result = run(lines(tmp_path / "a.jsonl", GOOD), "--columns", columns)
    assert result.exit_code == 1
    assert said in result.output
    assert not dataset.records


BAD: Sequence[tuple[object, tuple[str, str]]] = (
    ({**GOOD, "problem": None}, ("problem", "null")),
    ({"solution": ANSWER}, ("problem", "missing")),
    ({**GOOD, "problem": " \n"}, ("problem", "empty")),
    ({**GOOD, "solution": ["a"]}, ("solution", "not-text")),
    ({**GOOD, "solution": {"text": "a"}}, ("solution", "not-text")),
    ({**GOOD, "lang": 3}, ("lang", "not-text")),
    ({**GOOD, "problem": "a \ud800 b"}, ("problem", "surrogate")),
    ([GOOD], ("", "not-an-object")),
    (b'"text"\n', ("", "not-an-object")),
    (b"{not json}\n", ("", "not-json")),
    (b'{"problem": "a\x00b"}\n', ("", "not-json")),
    (b'{"problem": ' + b"[" * 100_000 + b"\n", ("", "not-json")),
    (b'{"problem": ' + b"9" * 5000 + b"}\n", ("", "not-json")),
    ('{"problem": "naïve"}\n'.encode("latin-1"), ("", "not-utf8")),
)


@pytest.mark.parametrize(
    ("row", "wanted"), BAD, ids=[f"{number}-{reason}" for number, (_, (_, reason)) in enumerate(BAD)]
)
def test_what_is_wrong_with_a_row_is_named_and_the_rest_is_imported(
    row: object, wanted: tuple[str, str], dataset: Dataset, tmp_path: Path
) -> None:
    other = {**GOOD, "problem": "Another task."}
    path = lines(tmp_path / "a.jsonl", GOOD, b"\n", row, other)
    assert problems(path, tmp_path) == [(3, *wanted)]
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 2


def test_a_zero_character_in_a_text_is_text(dataset: Dataset, tmp_path: Path) -> None:
    assert problems(lines(tmp_path / "a.jsonl", {**GOOD, "problem": "a\0b"}), tmp_path) == []
    assert dataset.of_kind(pb.KIND_INSTRUCTION)[0].instruction.text == "a\0b"


def test_the_last_line_may_be_cut_off_or_lack_its_line_feed(dataset: Dataset, tmp_path: Path) -> None:
    cut = json.dumps(GOOD).encode()
    assert problems(lines(tmp_path / "a.jsonl", GOOD, cut[:-5]), tmp_path) == [(2, "", "cut-off")]
    assert problems(lines(tmp_path / "b.jsonl", GOOD, cut), tmp_path) == []
    within = json.dumps({**GOOD, "problem": "Say 你好"}, ensure_ascii=False).encode().partition("好".encode())[0]
    assert problems(lines(tmp_path / "c.jsonl", GOOD, within + "好".encode()[:2]), tmp_path) == [(2, "", "cut-off")]


def test_a_line_that_is_too_large_is_passed_over_without_being_held(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_ROW_BYTES", 10_000)
    path = lines(tmp_path / "a.jsonl", GOOD, b"x" * 1_000_000 + b"\n", {**GOOD, "problem": "p" * 20_000}, GOOD)
    assert problems(path, tmp_path) == [(2, "", "too-large"), (3, "", "too-large")]
    assert problems(lines(tmp_path / "b.jsonl", GOOD, b"x" * 30_000), tmp_path) == [(2, "", "too-large")]


def test_a_row_that_the_store_refuses_does_not_stop_the_others(dataset: Dataset, tmp_path: Path) -> None:
    dataset.refused = "too large for the store"
    rows = [{**GOOD, "problem": f"Task {number}."} for number in range(5)]
    rows[2]["solution"] = "This is too large for the store."
    assert problems(lines(tmp_path / "a.jsonl", *rows), tmp_path) == [(3, "", "too-large")]
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 4


def test_of_several_responses_of_a_row_those_that_another_row_lacks_are_kept(dataset: Dataset, tmp_path: Path) -> None:
    def row(*answers: str) -> dict[str, object]:
        return {"instruction": "Count.", "parsing_result": [{"response": answer} for answer in answers]}

    result = run(lines(tmp_path / "a.jsonl", row("1", "2"), row("3", "2"), row("1")), fmt="selfcodealign")
    assert sorted(record.response.answer for record in dataset.of_kind(pb.KIND_RESPONSE)) == ["1", "2", "3"]
    assert "2 rows new, 1 existing" in result.output


def test_a_row_with_more_responses_than_the_store_takes_at_once_is_one_row(dataset: Dataset, tmp_path: Path) -> None:
    many = [{"response": str(number)} for number in range(1_200)]
    row = {"instruction": "Count.", "parsing_result": many}
    path = lines(tmp_path / "a.jsonl", row, {"instruction": "Add.", "parsing_result": [{"response": "3"}]})
    result = run(path, fmt="selfcodealign")
    assert "2 rows new, 0 existing" in result.output, result.output
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 1_201
    assert max(dataset.requests) <= storing.MOST_RECORDS
    assert "0 rows new, 2 existing" in run(path, fmt="selfcodealign").output
    dataset.refused = "1199"
    row["instruction"] = "Count on."
    assert problems(lines(tmp_path / "b.jsonl", row), tmp_path, fmt="selfcodealign") == [(1, "", "too-large")]
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 2_400


@pytest.mark.parametrize("answers", [("1", "2 too large"), ("2 too large", "1")])
def test_a_response_that_the_store_refuses_is_told_wherever_in_its_row_it_is(
    answers: Sequence[str], dataset: Dataset, tmp_path: Path
) -> None:
    dataset.refused = "too large"
    row = {"instruction": "Count.", "parsing_result": [{"response": answer} for answer in answers]}
    path = lines(tmp_path / "a.jsonl", row, {"instruction": "Add.", "parsing_result": [{"response": "3"}]})
    assert problems(path, tmp_path, fmt="selfcodealign") == [(1, "", "too-large")]
    assert sorted(record.response.answer for record in dataset.of_kind(pb.KIND_RESPONSE)) == ["1", "3"]


def test_an_import_of_which_the_store_refuses_every_row_fails(dataset: Dataset, tmp_path: Path) -> None:
    dataset.refused = "return"
    result = run(lines(tmp_path / "a.jsonl", GOOD))
    assert result.exit_code == 1
    assert "no row of" in result.output


def test_a_byte_order_mark_is_no_part_of_the_first_row(dataset: Dataset, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert problems(path, tmp_path) == []


def test_compressed_files_are_read(dataset: Dataset, tmp_path: Path) -> None:
    text = json.dumps(GOOD).encode() + b"\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    with pa.CompressedOutputStream(str(tmp_path / "b.jsonl.zst"), "zstd") as stream:
        stream.write(json.dumps({**GOOD, "problem": "Another."}).encode() + b"\n")
    result = run(tmp_path)
    assert "2 rows new" in result.output, result.output


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_of_a_compressed_file_that_is_cut_off_the_rows_before_are_imported(
    ending: str, dataset: Dataset, tmp_path: Path
) -> None:
    rows = [{**GOOD, "problem": f"Task {number}: {hash((number, 1)):x}."} for number in range(6_000)]
    text = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    packed = gzip.compress(text) if ending == "gz" else pa.compress(text, "zstd", asbytes=True)
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(packed[: len(packed) // 2])
    found = problems(path, tmp_path)
    assert [reason for _, _, reason in found][-1] == "cut-off"
    assert 100 < len(dataset.of_kind(pb.KIND_RESPONSE)) < 6_000


def table(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_is_read_with_the_columns_that_are_needed(dataset: Dataset, tmp_path: Path) -> None:
    nested = [{"deep": [1]}, {"deep": []}, None]
    path = table(tmp_path / "a.parquet", {"problem": ["A.", None, "C."], "solution": ["a", "b", "c"], "extra": nested})
    assert problems(path, tmp_path) == [(2, "problem", "null")]
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 2


def test_a_nested_parquet_column_is_named(dataset: Dataset, tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"prompt": ["A."], "completion": [{"role": "user"}]})
    assert problems(path, tmp_path) == [(0, "completion", "not-text")]


def test_a_parquet_column_that_occurs_twice_is_named_and_other_files_are_imported(
    dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    texts = [pa.array([text]) for text in ("A.", "B.", "c")]
    pq.write_table(pa.Table.from_arrays(texts, names=["problem", "problem", "solution"]), folder / "a.parquet")
    lines(folder / "b.jsonl", GOOD)
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "a.parquet: problem: occurs 2 times" in result.output
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 1


def test_parquet_with_bytes_that_are_no_text_loses_only_that_row(dataset: Dataset, tmp_path: Path) -> None:
    raw = pa.array([b"A.", b"\xff\xfe", b"C."], pa.binary()).view(pa.string())
    path = table(tmp_path / "a.parquet", {"problem": raw, "solution": ["a", "b", "c"]})
    assert problems(path, tmp_path) == [(2, "", "not-utf8")]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"", "empty-file"),
        ("a.jsonl", b"\n\n", "empty-file"),
        ("a.jsonl", json.dumps({"text": "a"}).encode(), "no-columns"),
        ("a.jsonl", b"{}\n{}\n", "no-columns"),
        ("a.jsonl", json.dumps([GOOD]).encode(), "unreadable-file"),
        ("a.json", b"[\n" + json.dumps(GOOD).encode() + b"\n]", "unreadable-file"),
        ("a.json", b"[" + json.dumps(GOOD).encode() + b",\n" + json.dumps(GOOD).encode() + b"]", "unreadable-file"),
        ("a.json", b"[" + b"{}," * (files.MAX_ROW_BYTES // 2) + b"{}]", "unreadable-file"),
        ("a.json", json.dumps(GOOD, indent=1).encode(), "unreadable-file"),
        ("a.jsonl", json.dumps(GOOD).encode("utf-16"), "unreadable-file"),
        ("a.jsonl.gz", b"not gzip", "unreadable-file"),
        ("a.jsonl.zst", b"not zstd", "unreadable-file"),
        ("a.parquet", b"PAR1", "unreadable-file"),
        ("a.parquet", b"", "unreadable-file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_imported(
    name: str, content: bytes, reason: str, dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(content)
    lines(folder / "z.jsonl", GOOD)
    told = tmp_path / "problems.jsonl"
    result = run(folder, "--problems", str(told))
    assert result.exit_code == 0, result.output
    (found,) = [json.loads(line) for line in told.read_text().splitlines()]
    assert (found["file"], found["row"], found["reason"]) == (name, 0, reason)
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 1


def test_a_parquet_table_without_rows_is_empty(dataset: Dataset, tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"problem": pa.array([], pa.string()), "solution": pa.array([], pa.string())})
    assert problems(path, tmp_path) == [(0, "", "empty-file")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nothing.jsonl", "no such file or directory"),
        ("empty", "no file to import in"),
        ("a.csv", "cannot tell its type by its name; files are .jsonl"),
    ],
)
def test_a_path_without_files_is_refused(given: str, said: str, dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("a,b\n")
    result = run(tmp_path / given)
    assert result.exit_code == 1
    assert said in re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize("folder", ["d" * 90, "tab\there", "bidi\u202e", "ä\u00a0b"])
def test_a_files_name_that_the_store_does_not_take_is_stored_in_another_form(
    folder: str, dataset: Dataset, tmp_path: Path
) -> None:
    names = [f"{folder}/{'e' * 90}/{letter}/{'f' * 100}.jsonl" for letter in "ab"]
    for name in names:
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        lines(tmp_path / "data" / name, GOOD)
    result = run(tmp_path / "data")
    assert result.exit_code == 0, result.output
    found = [record.import_source.name for record in dataset.of_kind(pb.KIND_IMPORT)]
    assert len(set(found)) == 2
    assert all(name.isprintable() and len(name) <= 200 and name.endswith("f.jsonl") for name in found)
    short = run(lines(tmp_path / "a\tb.jsonl", GOOD))
    assert short.exit_code == 0, short.output
    assert r"a\tb.jsonl" in [record.import_source.name for record in dataset.of_kind(pb.KIND_IMPORT)]


def test_the_collection_of_a_file_with_a_long_name_has_a_name_that_the_store_takes(
    dataset: Dataset, tmp_path: Path
) -> None:
    assert run(lines(tmp_path / f"{'x' * 240}.jsonl", GOOD)).exit_code == 0
    (name,) = dataset.collections
    assert len(name) <= 200


def test_links_and_what_is_no_file_are_read_or_named(dataset: Dataset, tmp_path: Path) -> None:
    lines(tmp_path / "real.jsonl", GOOD)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    (folder / "broken.jsonl").symlink_to("nothing")
    (folder / "round.jsonl").symlink_to("round.jsonl")
    (folder / "above").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.jsonl")
    told = tmp_path / "problems"
    result = run(folder, "--problems", str(told))
    assert "1 rows new" in result.output, result.output
    found = {each["file"]: each["reason"] for each in map(json.loads, told.read_text().splitlines())}
    assert found == {"broken.jsonl": "unreadable-file", "round.jsonl": "unreadable-file"}
    assert "is no regular file" in re.sub(r"\s+", " ", run(folder / "pipe.jsonl").output)


def test_a_path_that_the_system_refuses_is_an_error_of_one_line(dataset: Dataset, tmp_path: Path) -> None:
    result = run(tmp_path / ("x" * 300 + ".jsonl"))
    assert result.exit_code == 1
    assert "cannot read" in result.output
    assert "File name too long" in re.sub(r"\s+", " ", result.output)
    assert "bug" not in result.output


def test_an_unknown_format_is_refused_with_the_known_ones(dataset: Dataset, tmp_path: Path) -> None:
    result = run(lines(tmp_path / "a.jsonl", GOOD), fmt="row")
    assert result.exit_code == 1
    assert "unknown format 'row'; did you mean 'rows'?" in re.sub(r"\s+", " ", result.output)


def test_an_import_without_any_row_fails(dataset: Dataset, tmp_path: Path) -> None:
    result = run(lines(tmp_path / "a.jsonl", {**GOOD, "problem": None}))
    assert result.exit_code == 1
    assert "no row of" in result.output
    assert not dataset.of_kind(pb.KIND_RESPONSE)


def test_many_problems_are_counted_and_only_the_first_ones_printed(dataset: Dataset, tmp_path: Path) -> None:
    result = run(lines(tmp_path / "a.jsonl", GOOD, *[{**GOOD, "problem": None}] * 50))
    assert result.output.count("problem: is null") == imports.SHOWN_PROBLEMS
    assert "50 rows not imported" in result.output
    assert re.search(r"50  null: a value is null", result.output)


def test_a_text_that_breaks_the_reading_code_costs_only_its_row(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = formats()["rows"]
    whole = type(form).read

    def breaks(self: Any, row: Any, *rest: Any) -> Any:
        if row.number == 2:
            raise RecursionError("maximum recursion depth exceeded")
        return whole(self, row, *rest)

    monkeypatch.setattr(type(form), "read", breaks)
    other = {**GOOD, "problem": "Another task."}
    assert problems(lines(tmp_path / "a.jsonl", GOOD, GOOD, other), tmp_path) == [(2, "", "unreadable-row")]
    assert len(dataset.of_kind(pb.KIND_RESPONSE)) == 2


def test_without_a_hub_its_id_is_refused_with_advice(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    result = run("someone/data")
    said = re.sub(r"\s+", " ", result.output)
    assert result.exit_code == 1
    assert "no data set 'someone/data' on the hub that can be loaded (OSError: Name or service not known)" in said
    assert "copy its files here" in said


def test_files_of_the_hub_are_imported_under_its_name(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    path = lines(tmp_path / "cached.jsonl", GOOD)
    listed = ["README.md", "data/train.jsonl"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: listed)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(path))
    assert run("someone/data").exit_code == 0
    assert dataset.of_kind(pb.KIND_IMPORT)[0].import_source.name == "someone/data/data/train.jsonl"
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: listed[:1])
    with pytest.raises(Failure, match="no file that can be imported"):
        hub.sources("someone/data")


def test_the_help_names_every_format() -> None:
    text = re.sub(r"[\s│]+", " ", CliRunner().invoke(app, ["import", "--help"]).output)
    for name, form in formats().items():
        assert name in text
        assert form.name == name
        assert form.description
