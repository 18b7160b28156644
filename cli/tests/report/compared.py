"""A judgement of four answers, with the same text wherever a model may have written."""

from __future__ import annotations

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.records import complete

TESTS = "assert f(1) == 2\n"
PASSED, FAILED, UNDECIDED = pb.PAIR_RESULT_PASSED, pb.PAIR_RESULT_FAILED, pb.PAIR_RESULT_UNDECIDED
CONTRADICTS, NOT_EXECUTED = pb.PAIR_RESULT_CONTRADICTS, pb.PAIR_RESULT_NOT_EXECUTED
PAIRS = (
    *(PASSED, PASSED, PASSED, FAILED),
    *(PASSED, PASSED, CONTRADICTS, UNDECIDED),
    *(PASSED, PASSED, PASSED, FAILED),
    *(FAILED, NOT_EXECUTED, FAILED, FAILED),
)
"""Answers 0 and 2 do the same, 1 passes its own tests and is contradicted, 3 fails its own."""


def judgement(best: str, text: str) -> pb.Judgement:
    """Return the judgement of four answers."""
    said = (
        f"passes its own tests, contradicts 1 of 3 other attempts{text}",
        f"passes its own tests, contradicts 2 of 3 other attempts; at x=5 it returns 4, another returns 6{text}",
        f"passes its own tests, contradicts 1 of 3 other attempts{text}",
        f"fails its own tests; cannot be compared{text}",
    )
    classes = (1, 2, 1, 0)
    return pb.Judgement(
        attempts=[
            pb.JudgedAttempt(
                score=2.0,
                tests_share=0.75,
                class_number=number,
                class_size=classes.count(number) if number else 0,
                contradicts_itself=not number,
                sentence=sentence,
            )
            for number, sentence in zip(classes, said, strict=True)
        ],
        probability=0.875,
        inputs=31,
        best=best,
        mutants=[
            pb.JudgedMutant(description=f"line 1: kept{text}", fate=pb.JudgedMutant.FATE_KILLED),
            pb.JudgedMutant(
                description=f"line 2: + became -{text}",
                fate=pb.JudgedMutant.FATE_SURVIVED,
                input=f"x=5{text}",
                expected=f"returns 6{text}",
                outcome=f"returns 4{text}",
            ),
            pb.JudgedMutant(description="line 3", fate=99),  # type: ignore[arg-type]  # of a newer release
        ],
        mutation_score=0.5,
        added_tests=[pb.AddedTest(text=f"assert f(5) == 6{text}", detects=[f"line 2{text}", "attempt 1"], agreed_by=2)],
        tests=f"{TESTS}assert f(5) == 6{text}",
        pairs=PAIRS,
        telling_inputs=[
            pb.TellingInput(
                arguments=f"x=5{text}",
                classes=[
                    pb.ClassOutcome(class_number=1, outcome=f"returns 6{text}"),
                    pb.ClassOutcome(class_number=2, outcome=f"returns 4{text}"),
                ],
            )
        ],
    )


def records(text: str = "") -> tuple[pb.Record, list[pb.Record]]:
    """Return a judgement, and the records that it refers to: a task, four answers to it, and a row."""
    task = complete(pb.Record(kind=pb.KIND_INSTRUCTION, instruction=pb.Instruction(text=f"Add one to `x`. {text}")))
    answers = [
        complete(
            pb.Record(
                kind=pb.KIND_RESPONSE,
                parents=[task.id],
                attempt=number,
                response=pb.Response(code=f"def f(x):\n    return x + {number}  # {text}\n", tests=TESTS + text),
            )
        )
        for number in range(4)
    ]
    ids = [answer.id for answer in answers]
    judged = complete(pb.Record(kind=pb.KIND_JUDGEMENT, parents=ids, judgement=judgement(ids[0], text)))
    row = complete(pb.Record(kind=pb.KIND_EXAMPLE, parents=ids[:1], example=pb.Example(judgement_id=judged.id)))
    return judged, [task, *answers, row]


def add_agreement(report: api.GetReportResponse, judged: pb.Record, known: list[pb.Record]) -> None:
    """Add what comparisons found to a report, with the judgement that shows most."""
    found = report.agreement
    found.instructions, found.contested, found.outvoted, found.rows, found.rows_with_added_tests = 7, 2, 1, 5, 3
    found.all_judgements, found.all_rows, found.sample = 7, 5, 500
    found.class_sizes.update({2: 4, 3: 1})
    found.tests_shares.extend([*[0] * 9, 1, 4])
    found.mutation_scores.extend([0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 1])
    found.shown.CopyFrom(judged)
    found.shown_records.extend(known)
