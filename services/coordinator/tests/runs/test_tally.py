"""Counts of a stage: items in flight, speed, and time spent working."""

from __future__ import annotations

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.coordinator.ground import windows
from codealign.coordinator.ground.calls import SAMPLES_OF_CALL, Completions
from codealign.coordinator.ground.tally import Progress, StageTally
from fakes import Clock, FakeInference


def test_busy_seconds_are_those_with_something_in_flight() -> None:
    clock = Clock()
    tally = StageTally(clock=clock)
    clock.advance(5)
    tally.begin(2)
    clock.advance(1)
    tally.begin()
    clock.advance(1)
    tally.end(3)
    clock.advance(7)
    with tally.working():
        clock.advance(0.5)
        assert tally.busy_seconds == 2.5
    clock.advance(9)
    assert tally.busy_seconds == 2.5
    assert tally.in_flight == 0


def test_the_rate_is_of_what_was_done_in_the_last_minute() -> None:
    clock = Clock()
    tally = StageTally(clock=clock)
    tally.finish(None, fresh=False)
    for _ in range(11):
        tally.finish("empty")
        clock.advance(1)
    assert tally.rate() == 1.0
    clock.advance(120)
    assert tally.rate() == 0.0
    assert (tally.kept, tally.dropped) == (1, 11)


def test_progress_has_the_runs_own_stages_and_says_how_long_it_takes() -> None:
    clock = Clock()
    progress = Progress(["seeds", "responses"])
    tally = progress["responses"]
    tally.clock = clock
    tally.expected = 30
    for _ in range(10):
        tally.finish(None)
        clock.advance(1)
    [seeds, responses] = progress.to_wire()
    assert (seeds.stage, responses.stage) == ("seeds", "responses")
    assert not seeds.HasField("seconds_left")
    assert (responses.done, responses.expected, responses.seconds_left) == (10, 30, 20)
    assert progress.busy_seconds() == {}


async def test_a_request_of_more_samples_than_a_call_may_have_is_several_calls() -> None:
    inference, tally = FakeInference(slots=1000), StageTally()
    completions = Completions(inference, tally, windows.of_inference(inference), lambda: None, 10.0)
    count = 2 * SAMPLES_OF_CALL + 1
    request = inf.GenerateRequest(samples=[inf.Sample(attempt=number, seed=1) for number in range(count)])
    found = [response.completion.attempt async for response in completions.of(request)]
    assert sorted(found) == list(range(count))
    assert [len(each.samples) for each in inference.requests] == [SAMPLES_OF_CALL, SAMPLES_OF_CALL, 1]
    assert (tally.retries, tally.in_flight) == (0, 0)
