"""A tree whose answers were compared, with the same text wherever a model may have written."""

from __future__ import annotations

import json

from cli.tests.report.compared import add_agreement, judgement
from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.records import complete
from services.console.tests.conftest import CODE, TASK, TESTS, Tree


class Compared(Tree):
    """Four answers, of which the first became the row and the second passes its own tests, but is contradicted."""

    judgement: pb.Record
    trials: list[pb.Record]

    def __init__(self, text: str = "") -> None:
        super().__init__(text, answers=4)
        answers = [record for record in self.records if record.kind == pb.KIND_RESPONSE]
        ids = [answer.id for answer in answers]
        failed = sb.Result(verdict=sb.VERDICT_FAILED_ASSERTION, detail=text or "assert f(5) == 6")
        told = {"kind": "returned", "text": text or "6", "printed": "", "changed": "", "floats": False}
        lines = [f"{'a' * 32} {json.dumps(['input', 0, told])}", f"printed {text}", f"{'a' * 32} [1, {{]"]
        printed = "\n".join(lines).encode() + b"\n"
        observed = sb.Result(verdict=sb.VERDICT_COMPLETED, stdout=sb.Output(data=printed, total_bytes=len(printed)))
        self.trials = [
            complete(pb.Record(kind=pb.KIND_TRIAL, parents=parents, key=digit * 64, trial=pb.Trial(result=result)))
            for digit, parents, result in (("a", ids[:2], failed), ("b", ids[1:2], observed))
        ]
        self.judgement = complete(pb.Record(kind=pb.KIND_JUDGEMENT, parents=ids, judgement=judgement(ids[0], text)))
        self.records.remove(self.row)
        example = pb.Example(instruction=TASK + text, response=CODE + text, tests=TESTS + text, category="function")
        example.judgement_id, example.attempts, example.class_size = self.judgement.id, 4, 2
        example.tests_share, example.mutation_score = 1.0, 0.5
        example.surviving_mutants.append(text or "line 2: + became -")
        example.added_tests.append(f"assert f(5) == 6{text}")
        self.row = complete(pb.Record(kind=pb.KIND_EXAMPLE, parents=[ids[0], self.verdict.id], example=example))
        self.records += [*self.trials, self.judgement, self.row]

    def report(self, report: api.GetReportResponse) -> None:
        """Add what the comparison found to the run's report."""
        kinds = (pb.KIND_RESPONSE, pb.KIND_INSTRUCTION, pb.KIND_EXAMPLE)
        add_agreement(report, self.judgement, [record for record in self.records if record.kind in kinds])
