"""Checks on record bodies that the store relies on, by kind. Everything else is up to the pipelines. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.records import BODY_OF_KIND

MAX_NAME = 200
NO_VERDICTS = frozenset({sandbox_pb2.VERDICT_UNSPECIFIED, sandbox_pb2.VERDICT_INFRASTRUCTURE})
"""Values that are not a verdict on a program."""

_COMPLETION_KEY = re.compile(r"([0-9a-f]{64})/[0-9]{1,20}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WANTED = frozenset({pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_CANCELLED})
_SHORT_NAME = f"must be a short name: 1 to {MAX_NAME} printable characters"

Violations = Iterator[tuple[str, str]]


def violations(record: pb.Record) -> Violations:
    """Yield the violations of a record whose kind is known and whose body is set, as (path, what is required)."""
    check = _OF_KIND.get(record.kind)
    if check is not None:
        yield from check(record)


def _completion(record: pb.Record) -> Violations:
    """Check a completion. Other runs find it by its id alone, so everything that determines it must be in the id."""
    if len(record.parents) != 1:
        yield ".parents", "must be exactly the prompt prefix"
    if not record.stage_config_id:
        yield ".stage_config_id", "must be set: the configuration with the model revision and sampling"
    given = _COMPLETION_KEY.fullmatch(record.key)
    if not given or given[1] != hashlib.sha256(record.completion.prompt_suffix.encode()).hexdigest():
        yield ".key", 'must be the sha256 of completion.prompt_suffix, "/" and the sample\'s seed'
    if not _is_name(record.completion.finish_reason):
        yield ".completion.finish_reason", _SHORT_NAME


def _rejection(record: pb.Record) -> Violations:
    if record.rejection.rejected_kind not in BODY_OF_KIND:
        yield ".rejection.rejected_kind", "must be set: the kind of record that the rejection replaces"
    if not _is_name(record.rejection.reason):
        yield ".rejection.reason", _SHORT_NAME


def _decision(record: pb.Record) -> Violations:
    if not _is_name(record.decision.rule):
        yield ".decision.rule", _SHORT_NAME
    if record.decision.outcome not in pb.Decision.Outcome.values():
        yield ".decision.outcome", f"{record.decision.outcome} is not a known outcome"


def _example(record: pb.Record) -> Violations:
    """Check the shares: JSON has no number for NaN or infinity, so the row could not be exported."""
    for name in ("tests_share", "mutation_score"):
        if not math.isfinite(share := getattr(record.example, name)):
            yield f".example.{name}", f"is {share:g}; must be a finite number"


def _verdict(record: pb.Record) -> Violations:
    if record.verdict.result.verdict in NO_VERDICTS:
        yield ".verdict.result.verdict", "must be a verdict on the program: infrastructure faults are never recorded"


def _trial(record: pb.Record) -> Violations:
    if len(record.parents) not in (1, 2):
        yield ".parents", "must be the response and, if it is about other tests, the response that has them"
    if not _SHA256.fullmatch(record.key):
        yield ".key", "must be the sha256 of what was executed"
    if record.trial.result.verdict in NO_VERDICTS:
        yield ".trial.result.verdict", "must be a verdict on the program: infrastructure faults are never recorded"


def _judgement(record: pb.Record) -> Violations:
    if not record.parents or len(record.parents) != len(record.judgement.attempts):
        yield ".judgement.attempts", "must be one for each parent, the responses"
    if record.judgement.best and record.judgement.best not in record.parents:
        yield ".judgement.best", "must be one of the parents"
    if len(record.judgement.pairs) not in (0, len(record.parents) ** 2):
        yield ".judgement.pairs", "must be one for each pair of parents, or none"


def _evaluation_result(record: pb.Record) -> Violations:
    if record.evaluation_result.result.verdict == sandbox_pb2.VERDICT_INFRASTRUCTURE:
        yield ".evaluation_result.result.verdict", "infrastructure faults are never recorded"


def _run_request(record: pb.Record) -> Violations:
    yield from _one_parent(record, "the run, the loop, the evaluation or the series that the request is for")
    if record.run_request.wanted not in _WANTED:
        yield ".run_request.wanted", "must be RUNNING, PAUSED or CANCELLED"


def _run_event(record: pb.Record) -> Violations:
    yield from _one_parent(record, "the run, the loop, the evaluation or the series that the event is about")
    if record.run_event.state == pb.RUN_STATE_UNSPECIFIED or record.run_event.state not in pb.RunState.values():
        yield ".run_event.state", "must be set to a known state"


def _work_log(record: pb.Record) -> Violations:
    yield from _one_parent(record, "the run that the log is about")
    if not record.key:
        yield ".key", "must be set: the lease's token and a number, which distinguish a run's logs"
    for stage, seconds in sorted(record.work_log.busy_seconds.items()):
        if not (math.isfinite(seconds) and seconds >= 0):
            yield f".work_log.busy_seconds[{stage}]", f"is {seconds:g}; must be 0 or more seconds"
    if not 0 <= (seconds := record.work_log.inference_seconds) < math.inf:  # false for NaN
        yield ".work_log.inference_seconds", f"is {seconds:g}; must be 0 or more seconds"
    if record.work_log.stop.actions < 0:
        yield ".work_log.stop.actions", "must not be negative"


def _loop(record: pb.Record) -> Violations:
    if len(record.parents) not in (1, 2):
        yield ".parents", "must be the run whose version is the training data, and its series if it has one"
    if not record.loop.HasField("training"):
        yield ".loop.training", "must be set"


def _evaluation_job(record: pb.Record) -> Violations:
    if record.parents:
        yield ".parents", "must be empty: an evaluation is a root"
    if not record.evaluation_job.settings.benchmarks:
        yield ".evaluation_job.settings.benchmarks", "must name one benchmark at least"


def _import(record: pb.Record) -> Violations:
    if record.parents:
        yield ".parents", "must be empty: an import is a root"
    if not _is_name(record.import_source.name):
        yield ".import_source.name", _SHORT_NAME
    if not _SHA256.fullmatch(record.import_source.sha256):
        yield ".import_source.sha256", "must be 64 lower-case hexadecimal digits"
    if not _is_name(record.import_source.format):
        yield ".import_source.format", _SHORT_NAME


def _experiment(record: pb.Record) -> Violations:
    if record.parents:
        yield ".parents", "must be empty: an experiment is a root"
    for name in ("arms", "seeds", "evaluations"):
        if not getattr(record.experiment, name):
            yield f".experiment.{name}", "must have one entry at least"


def _series(record: pb.Record) -> Violations:
    yield from _one_parent(record, "the run of the first round")
    if record.round_series.number < 1:
        yield ".round_series.number", "must be the number of rounds, at least 1"
    if not record.round_series.loop.evaluations:
        yield ".round_series.loop.evaluations", "must not be empty: rounds are compared by them"


def _one_parent(record: pb.Record, which: str) -> Violations:
    if len(record.parents) != 1:
        yield ".parents", f"must be exactly one: {which}"


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


_OF_KIND: dict[int, Callable[[pb.Record], Violations]] = {
    pb.KIND_COMPLETION: _completion,
    pb.KIND_REJECTION: _rejection,
    pb.KIND_DECISION: _decision,
    pb.KIND_VERDICT: _verdict,
    pb.KIND_EXAMPLE: _example,
    pb.KIND_TRIAL: _trial,
    pb.KIND_JUDGEMENT: _judgement,
    pb.KIND_EVALUATION_RESULT: _evaluation_result,
    pb.KIND_RUN_REQUEST: _run_request,
    pb.KIND_RUN_EVENT: _run_event,
    pb.KIND_WORK_LOG: _work_log,
    pb.KIND_LOOP: _loop,
    pb.KIND_EVALUATION_JOB: _evaluation_job,
    pb.KIND_IMPORT: _import,
    pb.KIND_EXPERIMENT: _experiment,
    pb.KIND_SERIES: _series,
}
