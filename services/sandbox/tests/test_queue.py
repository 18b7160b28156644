"""Turns, estimates, and the rule for time-outs that are not the program's fault: pure parts of the gateway."""

from __future__ import annotations

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.estimates import ServiceTimes, retry_delay
from codealign.sandbox import rerun, validate
from codealign.sandbox.fairness import FairQueue

from .conftest import request


def _filled(**counts: int) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue()
    for caller, count in counts.items():
        for number in range(count):
            queue.put(caller, f"{caller}{number}")
    return queue


def test_callers_take_turns_and_each_is_served_in_its_order() -> None:
    queue = _filled(a=4, b=2, c=1)
    assert list(queue.drain()) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
    assert len(queue) == 0


def test_a_newcomer_waits_for_one_of_each_other_caller() -> None:
    queue = _filled(greedy=10_000)
    queue.pop()
    queue.put("other", "single")
    assert [queue.pop(), queue.pop()] == ["greedy1", "single"]


def test_what_is_put_back_is_the_next_one_again() -> None:
    queue = _filled(a=2, b=1)
    taken = queue.pop()
    queue.put_back("a", taken)
    assert list(queue.drain()) == ["a0", "b0", "a1"]


def test_what_is_taken_out_of_the_middle_leaves_nothing_behind() -> None:
    queue = _filled(a=3)
    assert queue.remove("a", "a1")
    assert not queue.remove("a", "a1")
    assert not queue.remove("b", "a0")
    assert (queue.waiting_of("a"), len(queue)) == (2, 2)
    assert list(queue.drain()) == ["a0", "a2"]
    with pytest.raises(KeyError):
        queue.pop()


def test_the_newest_of_whoever_has_the_most_makes_room() -> None:
    queue = _filled(a=5, b=2)
    assert queue.push_out("c") == "a4"
    assert queue.push_out("b") == "a3"
    # b would have as many as a, so b is refused.
    assert queue.push_out("b") is None
    assert queue.push_out("a") is None
    assert _filled().push_out("a") is None


def test_a_program_that_waits_is_ahead_of_no_more_than_its_own_rounds() -> None:
    assert _filled(a=100, b=3).ahead_of("b") == 6
    assert _filled(a=100, b=3).ahead_of("a") == 103


def test_the_delay_of_a_full_queue_is_how_long_it_takes_to_empty() -> None:
    times = ServiceTimes()
    assert times.wait(100, 2) == 50.0, "before the first result"
    for seconds in (0.1, 0.3):
        times.add(seconds)
    assert times.wait(100, 2) == pytest.approx(10.0)
    assert times.wait(100, 0) == pytest.approx(20.0), "no runner is there yet"
    assert (retry_delay(0.001), retry_delay(5.0), retry_delay(1e6)) == (0.1, 5.0, 30.0)


def test_a_wait_is_certain_only_where_enough_is_known() -> None:
    times = ServiceTimes()
    for _ in range(19):
        times.add(1.0)
    assert times.least_wait(100, 2) == 0.0
    times.add(60.0)
    assert times.least_wait(100, 2) == pytest.approx(50.0), "one that took long says nothing of the others"
    assert times.least_wait(1, 2) == 0.0, "a slot is free in the first round"
    assert times.least_wait(100, 0) == 0.0


def _timed_out(wall: float, cpu: float, stalled: float, **rest: object) -> pb.Result:
    values: dict[str, object] = {"verdict": pb.VERDICT_TIMED_OUT, **rest}
    return pb.Result(wall_seconds=wall, cpu_seconds=cpu, stalled_seconds=stalled, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "starved"),
    [
        pytest.param(_timed_out(10.1, 1, 6), True, id="ready to run, and no processor"),
        pytest.param(_timed_out(10.1, 0, 0), False, id="it slept"),
        pytest.param(_timed_out(10.1, 0.1, 0.4), False, id="it waited for a processor, but hardly"),
        pytest.param(_timed_out(10.1, 6, 3), False, id="it had its time"),
        pytest.param(_timed_out(4, 3, 1), False, id="the CPU limit, before the wall clock's"),
        pytest.param(_timed_out(4, 2, 2), True, id="the CPU limit, mostly by waits that are counted as use"),
        pytest.param(_timed_out(30, 2, 21), True, id="three times the limit, and little of it counted"),
        pytest.param(_timed_out(16, 2, 6), False, id="the limit, apart from its waits"),
        pytest.param(_timed_out(10.1, 1, 6, verdict=pb.VERDICT_RAISED), False, id="no time-out"),
        pytest.param(_timed_out(10.1, 1, 6, verdict=pb.VERDICT_OUT_OF_MEMORY), False, id="another limit"),
        pytest.param(
            _timed_out(12, 1, 6, verdict=pb.VERDICT_FLAKY, run_verdicts=[pb.VERDICT_PASSED, pb.VERDICT_TIMED_OUT]),
            True,
            id="one of its runs",
        ),
    ],
)
def test_a_time_out_for_want_of_a_processor(result: pb.Result, starved: bool) -> None:
    asked = validate.checked(request("x", wall_seconds=10, cpu_seconds=3, runs=max(len(result.run_verdicts), 1)))
    assert rerun.is_starved(asked, result) is starved


def test_the_second_run_has_three_times_the_time() -> None:
    asked = validate.checked(request("x", wall_seconds=60, cpu_seconds=3))
    again = rerun.request_alone(asked)
    assert (again.limits.wall_seconds, again.limits.cpu_seconds, asked.limits.wall_seconds) == (180, 9, 60)


def test_the_second_runs_detail_says_that_it_ran_alone_and_why() -> None:
    why = rerun.why(_timed_out(10.1, 0.5, 6))
    result = pb.Result(detail="AssertionError: x")
    rerun.settle(result, why)
    assert result.detail.startswith("AssertionError: x (run alone, with 3 times the limits: in 10 s it received 0.5 s")
    passed = pb.Result()
    rerun.settle(passed, why)
    assert passed.detail == why
