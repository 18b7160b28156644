"""What the store refuses in the records of each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2
from codealign.common.errors import InvalidArgument
from codealign.common.records import complete
from codealign.dataset import checks

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make

RUN = "1" * 32
CONFIG = "2" * 32


def refused(record: pb.Record) -> list[str]:
    """Return the paths of the invalid fields."""
    try:
        checks.records([record], max_bytes=10_000)
    except InvalidArgument as error:
        return [path.removeprefix("records[0]") for path, _ in error.violations]
    return []


def completion() -> pb.Record:
    from services.dataset.tests.conftest import Make

    made = Make()
    record = made.completion(made.prefix(), CONFIG)
    record.id = record.content_hash = ""
    return record


def request(wanted: pb.RunState.ValueType = pb.RUN_STATE_PAUSED) -> pb.Record:
    return pb.Record(kind=pb.KIND_RUN_REQUEST, parents=[RUN], run_request=pb.RunRequest(wanted=wanted, reason="why"))


def event(state: pb.RunState.ValueType = pb.RUN_STATE_RUNNING) -> pb.Record:
    return pb.Record(kind=pb.KIND_RUN_EVENT, parents=[RUN], run_event=pb.RunEvent(state=state))


def work_log(**seconds: float) -> pb.Record:
    return pb.Record(kind=pb.KIND_WORK_LOG, parents=[RUN], key="3/1", work_log=pb.WorkLog(busy_seconds=seconds))


def loop() -> pb.Record:
    body = pb.Loop(training=training_pb2.TrainingSpec(max_steps=4))
    return pb.Record(kind=pb.KIND_LOOP, parents=[RUN], loop=body)


def evaluation_job() -> pb.Record:
    settings = pb.EvaluationSettings(benchmarks=["humaneval"])
    return pb.Record(kind=pb.KIND_EVALUATION_JOB, evaluation_job=pb.EvaluationJob(settings=settings))


def import_source() -> pb.Record:
    return pb.Record(kind=pb.KIND_IMPORT, import_source=pb.Import(name="a.jsonl", sha256="0" * 64, format="rows"))


def example(**shares: float) -> pb.Record:
    return pb.Record(kind=pb.KIND_EXAMPLE, parents=[RUN], example=pb.Example(**shares))  # type: ignore[arg-type]


def series() -> pb.Record:
    body = pb.RoundSeries(number=2, loop=pb.Loop(evaluations=[pb.EvaluationSettings(benchmarks=["humaneval"])]))
    return pb.Record(kind=pb.KIND_SERIES, parents=[RUN], round_series=body)


@pytest.mark.parametrize(
    "make_record",
    [
        *(completion, request, event, lambda: work_log(seeds=0.0, concepts=1.5), loop, evaluation_job, series),
        import_source,
        lambda: example(tests_share=1, mutation_score=0),
        lambda: with_change(loop(), lambda r: r.parents.append(CONFIG)),
    ],
)
def test_a_record_as_the_contract_has_it_is_taken(make_record: Callable[[], pb.Record]) -> None:
    assert refused(make_record()) == []


def with_change(record: pb.Record, change: Callable[[pb.Record], object]) -> pb.Record:
    change(record)
    return record


@pytest.mark.parametrize(
    ("record", "paths"),
    [
        (with_change(completion(), lambda r: r.ClearField("parents")), [".parents"]),
        (with_change(completion(), lambda r: r.parents.append(RUN)), [".parents"]),
        (with_change(completion(), lambda r: r.ClearField("stage_config_id")), [".stage_config_id"]),
        (with_change(completion(), lambda r: r.ClearField("key")), [".key"]),
        (with_change(completion(), lambda r: setattr(r, "key", r.key.partition("/")[0])), [".key"]),
        (with_change(completion(), lambda r: setattr(r.completion, "prompt_suffix", "another's")), [".key"]),
        (with_change(completion(), lambda r: r.completion.ClearField("finish_reason")), [".completion.finish_reason"]),
        (request(pb.RUN_STATE_UNSPECIFIED), [".run_request.wanted"]),
        (request(pb.RUN_STATE_SUCCEEDED), [".run_request.wanted"]),
        (with_change(request(), lambda r: r.ClearField("parents")), [".parents"]),
        (event(pb.RUN_STATE_UNSPECIFIED), [".run_event.state"]),
        (event(99), [".run_event.state"]),  # type: ignore[arg-type]
        (with_change(event(), lambda r: r.parents.append(RUN)), [".parents"]),
        (work_log(a=-1.0, b=float("nan")), [".work_log.busy_seconds[a]", ".work_log.busy_seconds[b]"]),
        (with_change(work_log(), lambda r: r.ClearField("key")), [".key"]),
        (with_change(work_log(), lambda r: r.ClearField("parents")), [".parents"]),
        (with_change(loop(), lambda r: r.loop.ClearField("training")), [".loop.training"]),
        (with_change(loop(), lambda r: r.ClearField("parents")), [".parents"]),
        (
            with_change(evaluation_job(), lambda r: r.evaluation_job.ClearField("settings")),
            [".evaluation_job.settings.benchmarks"],
        ),
        (with_change(evaluation_job(), lambda r: r.parents.append(RUN)), [".parents"]),
        (with_change(import_source(), lambda r: r.parents.append(RUN)), [".parents"]),
        (with_change(import_source(), lambda r: r.import_source.ClearField("name")), [".import_source.name"]),
        (with_change(import_source(), lambda r: setattr(r.import_source, "sha256", "ab")), [".import_source.sha256"]),
        (with_change(import_source(), lambda r: r.import_source.ClearField("format")), [".import_source.format"]),
        (with_change(loop(), lambda r: r.parents.extend([CONFIG, CONFIG])), [".parents"]),
        (with_change(series(), lambda r: r.ClearField("parents")), [".parents"]),
        (with_change(series(), lambda r: r.round_series.ClearField("number")), [".round_series.number"]),
        (with_change(series(), lambda r: r.round_series.ClearField("loop")), [".round_series.loop.evaluations"]),
        (pb.Record(kind=pb.KIND_DECISION, decision=pb.Decision(rule="r", outcome=70_000)), [".decision.outcome"]),  # type: ignore[arg-type]
        (example(tests_share=float("nan")), [".example.tests_share"]),
        (example(mutation_score=float("inf")), [".example.mutation_score"]),
        (with_change(example(), lambda r: r.parents.extend([RUN] * 10_000)), [".parents", ""]),
        (with_change(loop(), lambda r: setattr(r, "key", "x" * 201)), [".key"]),
        (with_change(loop(), lambda r: setattr(r, "key", "a\nb")), [".key"]),
    ],
)
def test_what_the_store_relies_on_is_named(record: pb.Record, paths: list[str]) -> None:
    assert refused(record) == paths


def test_the_key_is_part_of_the_identity(make: Make) -> None:
    record = make.completion(make.prefix(), CONFIG, seed=1)
    other = make.completion(make.prefix(), CONFIG, seed=2)
    other.id = record.id
    assert refused(other) == [".id"]
    assert [item.record for item in checks.records([complete(record)], 10_000)] == [record]
