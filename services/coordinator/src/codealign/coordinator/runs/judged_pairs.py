"""What a judgement's record tells people: results of pairs of attempts, and inputs that tell them apart. Pure."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.agreement import telling
from codealign.coordinator.agreement.comparing import Compared
from codealign.coordinator.agreement.evidence import Attempts
from codealign.coordinator.agreement.explaining import named, shown
from codealign.coordinator.agreement.outcomes import Outcome
from codealign.coordinator.agreement.strength import MutantResult
from codealign.coordinator.agreement.telling import Pair

MAX_CHARS = 160
"""Characters of arguments and of an outcome: they stand in a table."""
_RESULTS = {
    Pair.PASSED: pb.PAIR_RESULT_PASSED,
    Pair.FAILED: pb.PAIR_RESULT_FAILED,
    Pair.CONTRADICTS: pb.PAIR_RESULT_CONTRADICTS,
    Pair.UNDECIDED: pb.PAIR_RESULT_UNDECIDED,
    Pair.NOT_EXECUTED: pb.PAIR_RESULT_NOT_EXECUTED,
}


def describe(body: pb.Judgement, compared: Compared, plurality: float) -> None:
    """Fill in a judgement's pairs and telling inputs.

    Args:
        body: The judgement.
        compared: What the comparison found.
        plurality: The rule's that it was made with; see `classes.counted`.
    """
    attempts = Attempts(compared.evidence, compared.inputs, compared.subject, plurality)
    body.pairs.extend(_RESULTS[each] for each in telling.pairs(attempts, compared.executed))
    for number, outcomes in telling.telling_inputs(attempts, compared.judgement.classes):
        told = body.telling_inputs.add(arguments=_arguments(compared, number))
        for place, outcome in outcomes:
            told.classes.add(class_number=place + 1, outcome=_outcome(outcome))


def difference(compared: Compared, survivor: MutantResult) -> pb.JudgedMutant:
    """Return the input at which a surviving mutant of the best answer does something else, and what both do there."""
    number = telling.difference(compared.outcomes, survivor.outcomes, compared.inputs)
    if number is None:
        return pb.JudgedMutant()
    return pb.JudgedMutant(
        input=_arguments(compared, number),
        expected=_outcome(compared.outcomes[number]),
        outcome=_outcome(survivor.outcomes[number]),
    )


def _arguments(compared: Compared, number: int) -> str:
    return shown(named(compared.inputs[number], compared.subject), MAX_CHARS)


def _outcome(found: Outcome) -> str:
    return shown(str(found), MAX_CHARS)
