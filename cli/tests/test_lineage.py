"""A row's lineage and a seed's descendants, as trees."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console, RenderableType

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.failures import Failure
from codealign.cli.family import Family, is_record_id, load_family, record_digits
from codealign.cli.lineage import lineage_tree, seed_place, verdict_text
from codealign.cli.records_view import record_view
from codealign.common.records import complete


def render(renderable: RenderableType, width: int = 120) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(renderable)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


@dataclass
class Line:
    """A seed with two instructions, two responses to the first, and a row."""

    records: dict[str, pb.Record]
    references: dict[str, pb.Record]
    ids: dict[str, str]

    def family(self, name: str) -> Family:
        return Family(self.ids[name], self.records, self.references)


@pytest.fixture
def line() -> Line:
    records: dict[str, pb.Record] = {}
    ids: dict[str, str] = {}

    def add(name: str, record: pb.Record) -> str:
        complete(record)
        records[record.id] = record
        ids[name] = record.id
        return record.id

    prefix = complete(pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix(text="FEW SHOTS\n" * 100)))
    config = complete(
        pb.Record(
            kind=pb.KIND_STAGE_CONFIG,
            stage_config=pb.StageConfig(kind=pb.KIND_RESPONSE, name="responses", settings_json="{}"),
        )
    )

    references = {prefix.id: prefix, config.id: config}
    origin = pb.Provenance(
        model="nano", model_revision="cafe" * 16, seed=42, prompt_tokens=1516, generated_tokens=20, seconds=0.5
    )

    def completion(suffix: str, text: str, finish_reason: str = "stop_string") -> str:
        body = pb.Completion(prompt_suffix=suffix, text=text, finish_reason=finish_reason, stop_string="</tests>")
        record = pb.Record(
            kind=pb.KIND_COMPLETION, parents=[prefix.id], key=suffix + text, completion=body, provenance=origin
        )
        references[complete(record).id] = record
        ids[f"completion {text}"] = record.id
        return record.id

    seed = add(
        "seed",
        pb.Record(
            kind=pb.KIND_SEED, seed=pb.Seed(code="def f(x): ...", name="f", path="lib/mod.py", line=7, license="MIT")
        ),
    )
    selected = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule="seed.selected", detail="meets every rule")
    add("selected", pb.Record(kind=pb.KIND_DECISION, parents=[seed, "0" * 32], decision=selected))
    concepts = add(
        "concepts",
        pb.Record(
            kind=pb.KIND_CONCEPT_SET,
            parents=[seed, completion("<code>def f</code>", "sorting, recursion")],
            concept_set=pb.ConceptSet(concepts=["sorting", "recursion"]),
            provenance=origin,
        ),
    )
    for attempt, text in enumerate(["Write a sort.", "Write another."]):
        add(
            f"instruction {attempt}",
            pb.Record(
                kind=pb.KIND_INSTRUCTION,
                parents=[concepts],
                attempt=attempt,
                instruction=pb.Instruction(text=text, category="function", difficulty="easy"),
            ),
        )
    instruction = ids["instruction 0"]
    results = [
        sb.Result(
            verdict=sb.VERDICT_FAILED_ASSERTION, detail="assert f(1) == 2", assertions_executed=1, assertions_total=3
        ),
        sb.Result(verdict=sb.VERDICT_PASSED, assertions_executed=3, assertions_total=3),
    ]
    for attempt, result in enumerate(results):
        response = add(
            f"response {attempt}",
            pb.Record(
                kind=pb.KIND_RESPONSE,
                parents=[instruction, completion("<task>Write a sort.</task>", f"answer {attempt}")],
                attempt=attempt,
                stage_config_id=config.id,
                response=pb.Response(answer=f"answer {attempt}", code=f"code {attempt}"),
                provenance=origin,
            ),
        )
        add(
            f"verdict {attempt}",
            pb.Record(kind=pb.KIND_VERDICT, parents=[response], verdict=pb.VerdictBody(result=result)),
        )
    add(
        "rejection",
        pb.Record(
            kind=pb.KIND_REJECTION,
            parents=[instruction, completion("<task>Write a sort.</task>", "Sure! \x1b[2J")],
            attempt=2,
            rejection=pb.Rejection(
                rejected_kind=pb.KIND_RESPONSE, reason="no-tests-section", detail="no <tests>", evidence="line\x1b 7"
            ),
        ),
    )
    chosen = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule="selection.chosen", detail="lowest that passed")
    add("chosen", pb.Record(kind=pb.KIND_DECISION, parents=[ids["response 1"]], decision=chosen))
    add(
        "row",
        pb.Record(
            kind=pb.KIND_EXAMPLE,
            parents=[ids["response 1"], ids["verdict 1"]],
            example=pb.Example(instruction="Write a sort.", response="answer 1", tests="assert f(1)"),
        ),
    )
    return Line(records, references, ids)


def test_a_row_is_explained_from_its_seed(line: Line) -> None:
    text = render(lineage_tree(line.family("row")))
    for part in (
        "lib/mod.py:7 f (MIT)",
        "kept by seed.selected: meets every rule",
        "sorting, recursion",
        "nano@cafecafecafe, seed 42",
        "1,516 prompt tokens, 20 generated, ended by stop_string '</tests>', 0.5 s",
        "1,000 characters, then",
        "│ <code>def f</code>",
        "easy function",
        "│ Write a sort.",
        "FAILED_ASSERTION assert f(1) == 2 (assertions: 1 executed, 3 in the tests)",
        "PASSED (assertions: 3 executed, 3 in the tests)",
        "kept by selection.chosen: lowest that passed",
        "configuration responses",
        "│ code 1",
        "and 1 more outside this lineage (instruction)",
    ):
        assert part in text, part
    assert "FEW SHOTS" not in text
    assert "Write another" not in text
    order = ["seed", "concepts", "instruction 0", "response 0", "response 1", "row"]
    places = [text.index(line.ids[name][:12]) for name in order]
    assert places == sorted(places)


def test_a_rejected_sample_stands_among_its_siblings_with_its_reason_and_no_control_characters(line: Line) -> None:
    text = render(lineage_tree(line.family("row")))
    assert f"rejected response attempt 2 {line.ids['rejection'][:12]}" in text
    assert "no-tests-section: no <tests>" in text
    assert "│ Sure! \N{REPLACEMENT CHARACTER}[2J" in text
    assert "│ line\N{REPLACEMENT CHARACTER} 7" in text
    assert "\x1b" not in text


def test_a_huge_source_is_shown_whole_and_soon() -> None:
    code = "x = " + "1 + " * 500_000 + "1  # the end"
    seed = complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=code, name="f")))
    started = time.monotonic()
    file = io.StringIO()
    Console(file=file, width=120, color_system=None, soft_wrap=True).print(record_view(seed))
    assert file.getvalue().count("1 + ") == 500_000
    assert time.monotonic() - started < 20


def test_a_verdict_in_one_line_controls_no_terminal() -> None:
    result = sb.Result(
        verdict=sb.VERDICT_RAISED, failing_source="\x1b[2J\u202e\u061c\nx", failing_line=3, detail="\u200fd"
    )
    text = verdict_text(result).plain
    assert not set(text) & set("\x1b\u202e\u061c\u200f\n")
    assert "x line 3" in text


def test_the_same_prompt_is_printed_once(line: Line) -> None:
    text = render(lineage_tree(line.family("row")))
    assert text.count("<task>Write a sort.</task>") == 1
    assert text.count("prompt: as above") == 2


def test_prompts_are_printed_in_full_when_asked_for(line: Line) -> None:
    text = render(lineage_tree(line.family("row"), prompts=True))
    assert text.count("FEW SHOTS") == 200
    assert "│ answer 0" in text


def test_of_a_seed_everything_that_came_of_it_is_shown(line: Line) -> None:
    text = render(lineage_tree(line.family("seed")))
    assert "Write another." in text
    assert f"row {line.ids['row'][:12]}" in text
    assert f"seed {line.ids['seed'][:12]}  ◀ requested" in text


def test_a_dropped_seed_says_why(line: Line) -> None:
    seed = line.records[line.ids["seed"]]
    dropped = pb.Decision(
        outcome=pb.Decision.OUTCOME_DROPPED, rule="seed.near-duplicate", detail="Jaccard 0.8", duplicate_of="ab" * 16
    )
    for parents, told in ([seed.id, "ab" * 16], ""), ([seed.id, "cd" * 16, "ab" * 16], " in run cdcdcdcdcdcd"):
        decision = complete(pb.Record(kind=pb.KIND_DECISION, parents=parents, decision=dropped))
        text = render(lineage_tree(Family(seed.id, {seed.id: seed, decision.id: decision})))
        assert f"by seed.near-duplicate: Jaccard 0.8 (duplicate of abababababab){told} {decision.id[:12]}" in text


def test_a_seed_that_no_run_came_to_says_so(line: Line) -> None:
    seed = line.records[line.ids["seed"]]
    assert "no run has used this seed" in render(lineage_tree(Family(seed.id, {seed.id: seed})))


def test_of_a_response_the_row_and_the_siblings_are_shown(line: Line) -> None:
    text = render(lineage_tree(line.family("response 1")))
    assert "response attempt 0" in text
    assert "row " in text


def test_a_record_is_shown_whole(line: Line) -> None:
    text = render(record_view(line.records[line.ids["response 1"]]))
    assert line.ids["response 1"] in text
    assert "code 1" in text
    written = render(record_view(line.references[line.ids["completion answer 1"]]))
    assert "stop_string" in written
    assert "answer 1" in written
    verdict = render(record_view(line.records[line.ids["verdict 0"]]))
    assert "FAILED_ASSERTION assert f(1) == 2" in verdict
    for record in line.records.values():
        assert record.id in render(record_view(record))


@pytest.mark.parametrize("given", ["", "abc", "xyzxyz", "a" * 33, "../etc"])
def test_what_is_no_id_is_refused_before_anything_is_asked(given: str) -> None:
    with pytest.raises(Failure, match="is not a record id"):
        record_digits(given)


def test_ids_may_be_written_in_capitals() -> None:
    assert record_digits(" ABCDEF ") == "abcdef"
    assert is_record_id("ab" * 16)
    assert not is_record_id("stdlib-3.11.7")


def test_of_a_completion_what_was_read_from_it_is_shown(line: Line) -> None:
    completion = line.references[line.ids["completion answer 1"]]
    response = line.records[line.ids["response 1"]]
    family = Family(completion.id, {completion.id: completion, response.id: response}, line.references)
    text = render(lineage_tree(family))
    assert text.index(f"completion {completion.id[:12]}  ◀ requested") < text.index(f"{response.id[:12]}")
    assert "│ answer 1" in text


@pytest.mark.parametrize("name", ["row", "seed", "response 0", "rejection"])
async def test_a_family_comes_with_the_completions_and_prompts_that_its_records_were_read_from(
    line: Line, store: Any, name: str
) -> None:
    store.add(*line.records.values(), *line.references.values())
    family = await load_family(store, line.ids[name][:8])
    assert family.focus == line.ids[name]
    assert set(line.records) <= set(family.records)
    assert set(line.references) <= set(family.references)
    assert not set(line.references) & set(family.records), "a completion is no member of the tree"
    assert render(lineage_tree(family)) == render(lineage_tree(line.family(name)))
    assert len(store.calls) < 8


async def test_the_family_of_a_completion_is_what_was_read_from_it(line: Line, store: Any) -> None:
    store.add(*line.records.values(), *line.references.values())
    family = await load_family(store, line.ids["completion answer 1"])
    text = render(lineage_tree(family))
    assert text.startswith("completion ")
    for name in ("response 1", "verdict 1", "row"):
        assert line.ids[name][:12] in text


def test_a_chain_of_the_same_kind_hangs_together_under_the_stages_that_made_it() -> None:
    """Such chains occur when instructions are evolved repeatedly."""
    configs = [
        complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=pb.StageConfig(name=name)))
        for name in ("instructions", "evolved")
    ]
    seed = complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(name="f")))
    first = complete(pb.Record(kind=pb.KIND_INSTRUCTION, parents=[seed.id], stage_config_id=configs[0].id))
    second = complete(pb.Record(kind=pb.KIND_INSTRUCTION, parents=[first.id], stage_config_id=configs[1].id))
    row = complete(pb.Record(kind=pb.KIND_EXAMPLE, parents=[seed.id, first.id, second.id]))
    records = {record.id: record for record in (row, second, first, seed)}
    family = Family(row.id, records, {record.id: record for record in configs})
    assert [family.parent(record) for record in (row, second, first, seed)] == [second.id, first.id, seed.id, ""]
    assert [family.stage(record) for record in (second, first, seed)] == ["evolved", "instructions", ""]
    assert render(lineage_tree(family)).index(first.id[:12]) < render(lineage_tree(family)).index(second.id[:12])


def test_a_response_that_holds_its_own_task_shows_both() -> None:
    seed = complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="x = 1\n", path="a.py", line=1)))
    body = pb.Response(instruction="Write a function g.", answer="Here.", code="def g(): ...")
    pair = complete(pb.Record(kind=pb.KIND_RESPONSE, parents=[seed.id], response=body))
    shown = render(lineage_tree(Family(pair.id, {seed.id: seed, pair.id: pair}, {})))
    assert shown.index("a.py:1") < shown.index("Write a function g.") < shown.index("def g(): ...")


def test_of_a_compared_response_its_trials_and_the_judgement_are_told(line: Line) -> None:
    one, other = (line.ids[name] for name in ("response 1", "response 0"))
    failed = sb.Result(verdict=sb.VERDICT_FAILED_ASSERTION, detail="assert f(2) == 3")
    trial = pb.Record(kind=pb.KIND_TRIAL, parents=[one, other], key="a" * 64, trial=pb.Trial(result=failed))
    judgement = pb.Judgement(
        attempts=[
            pb.JudgedAttempt(class_number=1, class_size=1, sentence="contradicts attempt 1 at n=2"),
            pb.JudgedAttempt(class_number=2, class_size=1),
        ],
        inputs=9,
        best=one,
        tests="assert f(2) == 4",
        added_tests=[pb.AddedTest(text="assert f(2) == 4")],
    )
    told = pb.Record(kind=pb.KIND_JUDGEMENT, parents=[one, other], judgement=judgement)
    for record in (trial, told):
        line.records[complete(record).id] = record
    text = render(lineage_tree(line.family("response 1")), width=200)
    assert f"with the tests of attempt 0, {other[:12]}:" in text
    assert "assert f(2) == 3" in text
    assert "2 answers were compared at 9 inputs. One answer is the winning class" in text
    assert "added by CodeAlign: assert f(2) == 4" in text
    assert "contradicts attempt 1 at n=2" in text


def test_records_that_this_client_does_not_know_are_shown() -> None:
    seed = complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(name="f")))
    newer = pb.Record(id="ab" * 16, kind=99, parents=[seed.id])  # type: ignore[arg-type]  # an open enumeration
    text = render(lineage_tree(Family(seed.id, {seed.id: seed, newer.id: newer})))
    assert "record of kind 99 abababababab" in text
    assert "this client does not know the record" in render(record_view(newer))
    verdict = pb.VerdictBody(result=sb.Result(verdict=77, isolation=66))  # type: ignore[arg-type]
    told = render(record_view(pb.Record(kind=pb.KIND_VERDICT, verdict=verdict)))
    assert "verdict 77" in told
    assert "isolation 66" in told


def test_records_whose_parents_go_in_a_circle_end() -> None:
    one, two = (pb.Record(id=name * 16, kind=pb.KIND_INSTRUCTION) for name in ("aa", "bb"))
    one.parents.append(two.id)
    two.parents.append(one.id)
    family = Family(one.id, {one.id: one, two.id: two})
    assert family.line() == {one.id, two.id}
    lineage_tree(family)


def test_of_a_run_its_requests_and_events_are_told() -> None:
    run = complete(pb.Record(kind=pb.KIND_RUN, run=pb.Run(name="mine", seeds=pb.SeedSelection(collection="c"))))
    asked = pb.RunRequest(wanted=pb.RUN_STATE_RUNNING, reason="started")
    ended = pb.RunEvent(state=pb.RUN_STATE_SUCCEEDED, message="7 rows")
    children = [
        complete(pb.Record(kind=pb.KIND_RUN_REQUEST, parents=[run.id], run_request=asked)),
        complete(pb.Record(kind=pb.KIND_RUN_EVENT, parents=[run.id], run_event=ended)),
        complete(pb.Record(kind=pb.KIND_WORK_LOG, parents=[run.id], key="1/0", work_log=pb.WorkLog())),
    ]
    text = render(lineage_tree(Family(run.id, {record.id: record for record in (run, *children)})))
    assert "running: started" in text
    assert "succeeded: 7 rows" in text
    assert "of its completion" not in text, "a work log's key is no number of a completion's record"


def test_a_family_may_be_a_longer_chain_than_python_may_recurse() -> None:
    chain: list[pb.Record] = []
    for _ in range(3000):
        parents = [record.id for record in chain[-1:]]
        chain.append(complete(pb.Record(kind=pb.KIND_INSTRUCTION, parents=parents, instruction=pb.Instruction())))
    family = Family(chain[0].id, {record.id: record for record in reversed(chain)})
    assert family.line() == {chain[0].id}
    assert family.parent(chain[-1]) == chain[-2].id


def test_a_seed_without_a_line_is_placed_by_its_file() -> None:
    assert seed_place(pb.Seed(path="lib/mod.py", line=7)) == "lib/mod.py:7"
    assert seed_place(pb.Seed(path="rows.jsonl")) == "rows.jsonl"
