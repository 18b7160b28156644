"""What a report says of the comparison of attempts."""

from __future__ import annotations

import pytest

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.reporting import agreement
from fakes import FakeServices

RUN = "ab" * 16
PASSED, UNDECIDED = pb.PAIR_RESULT_PASSED, pb.PAIR_RESULT_UNDECIDED


def judgement(
    *classes: int, parents: list[str] | None = None, contested: bool = False, told: bool = True, own: int = PASSED
) -> pb.Record:
    """Return a judgement of attempts of these classes."""
    count = len(classes)
    body = pb.Judgement(
        attempts=[pb.JudgedAttempt(class_number=each, contradicts_itself=not each) for each in classes],
        is_contested=contested,
        pairs=[own if n % (count + 1) == 0 else PASSED for n in range(count * count)],  # type: ignore[misc]
        telling_inputs=[pb.TellingInput(arguments="x=5")] if told else [],
    )
    parents = parents or [f"{n:032x}" for n in range(count)]
    key = "/".join(map(str, (*classes, contested, told, own)))
    return records.complete(pb.Record(kind=pb.KIND_JUDGEMENT, parents=parents, key=key, judgement=body))


def row(of: str, size: int = 2, share: float = 1.0, score: float | None = None, added: int = 0) -> pb.Record:
    example = pb.Example(judgement_id=of, class_size=size, tests_share=share, mutation_score=score)
    example.added_tests.extend(["assert f(5)"] * added)
    return pb.Record(kind=pb.KIND_EXAMPLE, example=example)


def test_rows_are_counted_by_class_size_and_by_steps() -> None:
    rows = [row("a", 2, 1.0, 0.0, 1), row("b", 3, 0.95, 1.0), row("c", 2, 0.3, None, 2)]
    told = agreement.summarize([], rows)
    assert (told.rows, told.rows_with_added_tests, dict(told.class_sizes)) == (3, 2, {2: 2, 3: 1})
    assert list(told.tests_shares) == [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1]
    assert list(told.mutation_scores) == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert list(agreement.summarize([], [row("a")]).mutation_scores) == []


def test_passes_outside_the_winning_class_are_counted() -> None:
    told = agreement.summarize([judgement(1, 1, 2, 0), judgement(1, 2, 2), judgement(1, 2, contested=True)], [])
    assert (told.instructions, told.contested, told.outvoted) == (3, 1, 4)
    contradicting = judgement(1, 2, own=pb.PAIR_RESULT_CONTRADICTS)
    assert agreement.outvoted(contradicting.judgement) == [1], "it contradicts itself, but passes"
    assert agreement.outvoted(judgement(1, 2, own=UNDECIDED).judgement) == [], "it is not known to pass"


def test_of_judgements_of_the_same_attempts_the_one_of_most_counts() -> None:
    few, many = judgement(1, 2), judgement(1, 2, 1)
    assert agreement.latest([few, many]) == agreement.latest([many, few]) == [many]


@pytest.mark.parametrize(
    "others",
    [
        [judgement(1, 1, 1, 1)],
        [judgement(1, 1, 2, told=False)],
        [judgement(1, 1, 2, 2, 3, contested=True)],
        [],
    ],
    ids=["nobody outvoted", "no input that tells", "contested", "alone"],
)
def test_a_pass_that_is_outvoted_shows_most(others: list[pb.Record]) -> None:
    wanted = judgement(1, 1, 2)
    assert agreement.most_telling([*others, wanted], []) == wanted
    assert agreement.most_telling([wanted, *others], [each.id for each in others]) == wanted


def test_without_judgements_nothing_is_shown() -> None:
    assert agreement.most_telling([], []) is None


async def test_a_report_has_what_the_shown_judgement_refers_to() -> None:
    fakes = FakeServices()
    put = fakes.dataset.put
    task = put(pb.Record(kind=pb.KIND_INSTRUCTION, instruction=pb.Instruction(text="Add.")), collection=RUN)[0]
    answers = [
        put(
            pb.Record(kind=pb.KIND_RESPONSE, parents=[task.id], attempt=n, response=pb.Response(code=f"x = {n}")),
            collection=RUN,
        )[0]
        for n in range(3)
    ]
    judged = put(judgement(1, 2, 1, parents=[each.id for each in answers]), collection=RUN)[0]
    made = row(judged.id, added=1)
    made.parents.append(answers[0].id)
    chosen = put(made, collection=RUN)[0]
    other = row("cd" * 16)
    other.parents.append(answers[1].id)
    put(other, collection=RUN)
    counts = list((await fakes.dataset.count(ds.CountRequest(collection=RUN))).counts)
    async with RunStore(fakes.services.dataset, RUN) as store:
        told = await agreement.read(store, counts)
        assert await agreement.read(store, []) is None
    assert told is not None
    assert (told.instructions, told.all_judgements, told.all_rows, told.rows_with_added_tests) == (1, 1, 2, 1)
    assert told.shown.id == judged.id
    assert {each.id for each in told.shown_records} == {task.id, chosen.id, *(each.id for each in answers)}
