"""Formats of imports: the reference's files, and OctoPack's commits with their filters."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.importing import files
from codealign.cli.importing.format import Format
from codealign.cli.importing.formats import commitpackft, formats
from codealign.cli.importing.formats.commitpackft import FORMAT as COMMITS
from codealign.cli.importing.formats.selfcodealign import FORMAT as REFERENCE
from codealign.cli.importing.rows import Dropped, Row, Unusable

SEED = 'def double(x):\n    """Return twice x."""\n    return 2 * x\n'
ANSWER = "```python\ndef triple(x):\n    return 3 * x\n```\n\n[Tests]\n```python\nassert triple(2) == 6\n```"
WHOLE = {
    "fingerprint": None,
    "sha1": "0" * 40,
    "id": 7,
    "prompt": "examples, then the seed",
    "seed": SEED,
    "concepts": ["multiplication", "functions"],
    "instruction": "Write triple(x), three times x.",
    "response": ANSWER,
}


def read(form: Format, fields: dict[str, Any], license_id: str = "") -> list[tuple[Any, int | None]]:
    row = Row("theirs.jsonl", 3, fields)
    taken = form.taken(list(fields), {})
    return [(node.body, node.parent) for node in form.read(row, taken.columns, license_id)]


@pytest.mark.parametrize("name", list(formats()))
def test_every_format_describes_what_it_reads(name: str) -> None:
    form = formats()[name]
    assert form.VERSION >= 1
    assert all(set(layout.required) | set(layout.optional) <= set(form.roles) for layout in form.layouts)
    assert all(not form.needs(layout.required) for layout in form.layouts)
    assert form.needs(())


def test_a_row_of_the_reference_becomes_seed_concepts_instruction_and_response() -> None:
    (seed, concepts, instruction, response) = read(REFERENCE, WHOLE, "ODC-By-1.0")
    assert (seed[0].code, seed[0].name, seed[0].docstring) == (SEED, "double", "Return twice x.")
    assert list(concepts[0].concepts) == ["multiplication", "functions"]
    assert (instruction[0].text, list(instruction[0].concepts)) == (WHOLE["instruction"], WHOLE["concepts"])
    assert (response[0].code, response[0].tests) == ("def triple(x):\n    return 3 * x\n", "assert triple(2) == 6\n")
    assert [parent for _, parent in (seed, concepts, instruction, response)] == [None, 0, 1, 2]
    assert {seed[0].license, instruction[0].license, response[0].license} == {"ODC-By-1.0"}


STAGES: list[tuple[tuple[str, ...], list[Any]]] = [
    (("seed",), [pb.Seed]),
    (("seed", "concepts"), [pb.Seed, pb.ConceptSet]),
    (("seed", "concepts", "instruction"), [pb.Seed, pb.ConceptSet, pb.Instruction]),
    (("instruction",), [pb.Instruction]),
    (("instruction", "response"), [pb.Instruction, pb.Response]),
    (("seed", "instruction", "response"), [pb.Seed, pb.Instruction, pb.Response]),
]


@pytest.mark.parametrize(("columns", "kinds"), STAGES)
def test_the_file_of_every_stage_is_read_as_far_as_it_goes(columns: tuple[str, ...], kinds: list[type]) -> None:
    made = read(REFERENCE, {name: WHOLE[name] for name in columns})
    assert [type(body) for body, _ in made] == kinds


def test_unfiltered_responses_are_children_of_one_instruction() -> None:
    draws = [{"response": ANSWER}, {"response": ANSWER.replace("3 *", "4 *")}]
    fields = {**WHOLE, "parsing_result": draws}
    del fields["response"]
    made = read(REFERENCE, fields)
    assert [parent for _, parent in made] == [None, 0, 1, 2, 2]
    with pytest.raises(Unusable, match="must be a list of objects with a `response`"):
        read(REFERENCE, {**fields, "parsing_result": ["text"]})
    with pytest.raises(Unusable, match="is null"):
        read(REFERENCE, {**fields, "parsing_result": [{"response": None}]})


def test_unfiltered_responses_are_read_from_parquet_too(tmp_path: Any) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"instruction": ["One."], "parsing_result": [[{"response": "1"}, {"response": "2"}]]}), path
    )
    (row,) = files.rows(path, "a.parquet", ["instruction", "parsing_result"], ["parsing_result"])
    assert isinstance(row, Row)
    assert len(read(REFERENCE, dict(row.fields))) == 3


def test_a_response_without_its_instruction_is_refused() -> None:
    with pytest.raises(Unusable, match="needs the instruction of the response"):
        REFERENCE.taken(["seed", "response"], {"seed": "seed", "response": "response"})


OLD = (
    "def total(values):\n    result = 0\n    for value in values:\n        result = result + value\n    return result\n"
)
NEW = (
    'def total(values):\n    """Return the sum of the values, which may be any iterable of numbers."""\n'
    "    return sum(values)\n"
)
COMMIT = {
    "commit": "1" * 40,
    "old_file": "lib/numbers.py",
    "new_file": "lib/numbers.py",
    "old_contents": OLD,
    "new_contents": NEW,
    "subject": "Use the builtin sum instead of a loop",
    "message": "Use the builtin sum instead of a loop\n\nIt is faster.\n",
    "lang": "Python",
    "license": "mit",
    "repos": "someone/numbers",
}


def test_a_commit_is_a_task_with_the_old_code_and_an_answer_with_the_new() -> None:
    (instruction, response) = read(COMMITS, COMMIT, "unused")
    assert instruction[0].text == f"{COMMIT['subject']}\n\n```python\n{OLD}```"
    assert response[0].answer == f"```python\n{NEW}```"
    assert (response[0].code, response[0].tests) == (NEW, "")
    assert (instruction[0].license, response[0].license, instruction[0].language) == ("mit", "mit", "Python")
    assert response[1] == 0


def test_a_commit_in_another_language_has_nothing_to_execute() -> None:
    fields = {**COMMIT, "lang": "Rust", "new_file": "lib/numbers.rs"}
    (_, response) = read(COMMITS, fields)
    assert response[0].code == ""
    assert response[0].answer.startswith("```rust\n")


def test_a_commit_that_adds_a_file_shows_no_old_code() -> None:
    (instruction, _) = read(COMMITS, {**COMMIT, "old_contents": "", "new_contents": NEW * 3})
    assert instruction[0].text == COMMIT["subject"]


def test_code_with_fences_stays_in_its_block() -> None:
    (_, response) = read(COMMITS, {**COMMIT, "new_contents": f"'''\n```python\n'''\n{NEW}"})
    assert response[0].answer.startswith("````python\n")


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"new_contents": " \n"}, "commit.empty"),
        ({"new_contents": OLD}, "commit.unchanged"),
        ({"old_contents": "x" * commitpackft.MAX_OLD_CHARACTERS}, "commit.too-large"),
        ({"new_file": "lib/notes.txt"}, "commit.other-ending"),
        ({"subject": "Fix the sum of empty lists (#12)"}, "commit.reference"),
        ({"subject": "Make numbers faster with the builtin sum"}, "commit.file-name"),
        ({"subject": "Use builtin sum"}, "commit.subject-length"),
        ({"subject": "Use a b c " + "d" * 1000}, "commit.subject-length"),
        ({"subject": "use the builtin sum instead of a loop"}, "commit.not-capitalized"),
        ({"old_contents": "a", "new_contents": "b"}, "commit.tokens"),
        ({"new_contents": NEW * 40}, "commit.tokens"),
        ({"subject": "The builtin sum is used instead of a loop"}, "commit.not-imperative"),
        ({"subject": "Used the builtin sum instead of a loop"}, "commit.not-imperative"),
        ({"subject": "Merge branch of the other team into main"}, "commit.uninformative"),
        ({"subject": "Fix the loop that I broke last week"}, "commit.uninformative"),
        ({"subject": "Apply what the code review asked for"}, "commit.uninformative"),
        ({"subject": "Fix issue 12 with sums of lists"}, "commit.uninformative"),
        ({"subject": "Add sum from https://example.org/sum to it"}, "commit.uninformative"),
        ({"subject": "Bump the library to version three"}, "commit.version-bump"),
    ],
)
def test_each_filter_drops_what_it_is_for(changed: dict[str, str], rule: str) -> None:
    assert rule in COMMITS.rules
    with pytest.raises(Dropped) as dropped:
        read(COMMITS, {**COMMIT, **changed})
    assert dropped.value.rule == rule


def test_python_files_are_not_dropped_for_their_ending() -> None:
    """The publication compares "py" with ".py", which drops all of them."""
    for language, endings in commitpackft.ENDINGS.items():
        for ending in endings:
            found = {"language": language, "file": f"a/other{ending}"}
            assert commitpackft.dropped_by(OLD, NEW, COMMIT["subject"], found) == "", (language, ending)


def test_one_in_ten_version_bumps_is_kept_and_always_the_same() -> None:
    kept = [
        number
        for number in range(500)
        if not commitpackft.dropped_by(OLD, NEW, "Bump the library to version three", {"commit": f"{number:040x}"})
    ]
    assert 20 < len(kept) < 90


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("[core] Fix billing of the project", "Fix billing of the project"),
        ("demo/cmd.py: Fix the format", "Fix the format"),
        ("Fix the format [ci skip]", "Fix the format"),
        ("Fix the format [WIP-12]", "Fix the format"),
        ("  Fix   it ", "Fix it"),
        ("[ci skip]", ""),
    ],
)
def test_marks_for_other_programs_are_no_part_of_the_task(subject: str, text: str) -> None:
    assert commitpackft.cleaned(subject) == text
