"""What a judgement adds to a row: stronger tests, and how the response compares with the other attempts. Pure."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records


def verdict_id(judgement: pb.Record) -> str:
    """Return the id of the verdict on the best response of a judgement with its stronger tests."""
    parents = [judgement.judgement.best, judgement.id]
    return records.derive_id(pb.KIND_VERDICT, parents, stage_config_id=judgement.stage_config_id)


def stronger(response: pb.Record, judgement: pb.Record, verdict: str) -> pb.Record:
    """Return a response with the stronger tests of its judgement, if it is the best one and has some.

    Args:
        response: The response.
        judgement: Its judgement.
        verdict: Id of the row's verdict. If it is not on the stronger tests, they could not be executed again, and the
            row has the response's own.
    """
    found = judgement.judgement
    if response.id != found.best or not found.tests or verdict != verdict_id(judgement):
        return response
    record = pb.Record()
    record.CopyFrom(response)
    record.response.tests = found.tests
    return record


def describe(example: pb.Example, response_id: str, judgement: pb.Record) -> None:
    """Fill in a row's fields about the comparison of its response with the other attempts.

    Args:
        example: The row, with its verdict.
        response_id: Id of its response.
        judgement: The judgement.
    """
    found = judgement.judgement
    own = dict(zip(judgement.parents, found.attempts, strict=True))[response_id]
    example.judgement_id = judgement.id
    example.attempts = len(found.attempts)
    example.class_size = own.class_size
    example.tests_share = own.tests_share
    if response_id != found.best:
        return
    if found.HasField("mutation_score"):
        example.mutation_score = found.mutation_score
    survivors = (each for each in found.mutants if each.fate == pb.JudgedMutant.FATE_SURVIVED)
    example.surviving_mutants.extend(each.description for each in survivors)
    if found.tests and example.verdict_id == verdict_id(judgement):
        example.added_tests.extend(each.text for each in found.added_tests)
