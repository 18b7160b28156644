"""Which worker gets which sample: the dispatcher, without workers, gRPC or a clock."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from codealign.common.errors import CodeAlignError, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from codealign.inference.gateway.dispatch import Dispatcher
from codealign.inference.gateway.ring import Ring
from codealign.inference.gateway.work import Call, Fault, Job, ModelKey, Refused, Returned

KEY = ModelKey("m", "r1")


def never(key: ModelKey) -> str:
    return "nobody has it"


class Bench:
    """A dispatcher whose calls are answered by the test, at times of its choice."""

    def __init__(self, *, limit: int = 1000, attempts: int = 3, patience: float = 30.0, silence: float = 100.0) -> None:
        self.core = Dispatcher(limit, attempts, patience, silence)
        self.now = 0.0
        self.calls: list[Call] = []
        self.errors: dict[Job, CodeAlignError] = {}

    def open(self, *workers: str, slots: int = 4, key: ModelKey = KEY) -> None:
        for worker in workers:
            self.core.open_lane(worker, key, slots)
        self.pump()

    def job(self, count: int = 1, *, caller: str = "a", prefix: str = "", key: ModelKey = KEY) -> Job:
        job = Job(key, caller, prefix, lambda error: self.errors.__setitem__(job, error))
        self.core.submit(job, range(count), self.now)
        self.pump()
        return job

    def pump(self) -> list[Call]:
        started = self.core.start(self.now)
        self.calls += started
        return started

    def answer(self, call: Call, count: int | None = None) -> None:
        for attempt in list(call.owed)[:count]:
            assert self.core.answered(call, attempt, self.now)
        if not call.owed:
            self.core.ended(call, None, self.now)
        self.pump()

    def end(self, call: Call, ending: Fault | Returned | Refused | None) -> None:
        self.core.ended(call, ending, self.now)
        self.pump()

    def at(self, worker: str) -> int:
        return self.core.in_flight_at(worker)


def favourite(workers: list[str], prefix: str) -> str:
    return next(Ring(workers).walk(prefix))


def test_a_prefix_group_stays_on_one_worker_while_that_has_room() -> None:
    bench = Bench()
    bench.open("w1", "w2", "w3", slots=40)
    for _ in range(10):
        bench.job(prefix="group")
    assert {call.worker for call in bench.calls} == {favourite(["w1", "w2", "w3"], "group")}
    assert bench.core.spilled == 0


def test_groups_spread_over_the_workers() -> None:
    bench = Bench()
    bench.open("w1", "w2", "w3", slots=40)
    for number in range(30):
        bench.job(prefix=f"group {number}")
    assert all(bench.at(worker) >= 5 for worker in ("w1", "w2", "w3"))


def test_when_the_groups_own_worker_is_full_the_least_loaded_one_takes_over() -> None:
    bench = Bench()
    bench.open("w1", "w2", "w3", slots=8)
    own = favourite(["w1", "w2", "w3"], "group")
    bench.job(24, prefix="group")
    assert sorted(bench.at(worker) for worker in ("w1", "w2", "w3")) == [7, 8, 9]
    assert bench.at(own) == 9, "one more than it has slots"
    assert bench.core.spilled == 15


def test_with_all_workers_busy_a_free_slot_goes_to_a_group_that_belongs_there() -> None:
    workers = ["w1", "w2"]
    groups = {worker: next(p for p in map(str, range(50)) if favourite(workers, p) == worker) for worker in workers}
    bench = Bench()
    bench.open(*workers, slots=4)
    bench.job(10, prefix="")
    assert bench.core.waiting == 0
    for worker in ("w1", "w2", "w1"):
        bench.job(prefix=groups[worker])
    busy = next(call for call in bench.calls if call.worker == "w2")
    bench.answer(busy, 1)
    assert bench.calls[-1].worker == "w2"
    assert bench.calls[-1].job.prefix_key == groups["w2"], "not the one that waits longest"


def test_a_worker_that_leaves_moves_its_own_groups_only() -> None:
    before, after = Ring(["w1", "w2", "w3"]), Ring(["w1", "w2"])
    for key in map(str, range(200)):
        old, new = next(before.walk(key)), next(after.walk(key))
        assert new == old or old == "w3"


def test_the_samples_of_a_job_go_to_a_worker_in_one_call() -> None:
    bench = Bench()
    bench.open("w1", slots=16)
    bench.job(10)
    assert [len(call.owed) for call in bench.calls] == [10]


def test_callers_take_turns() -> None:
    bench = Bench()
    bench.job(100, caller="greedy")
    bench.job(2, caller="modest")
    bench.open("w1", slots=3)
    assert {call.job.caller: len(call.owed) for call in bench.calls} == {"greedy": 2, "modest": 2}


def test_a_full_queue_refuses_with_a_delay_and_is_nobodys_alone() -> None:
    bench = Bench(limit=10)
    first = [bench.job(caller="greedy") for _ in range(10)]
    with pytest.raises(ResourceExhausted) as caught:
        bench.job(caller="greedy")
    assert caught.value.retry_after > 0
    bench.now = 1.0
    modest = bench.job(2, caller="modest")
    assert isinstance(bench.errors[first[-1]], ResourceExhausted), "the newest of whoever has the most"
    assert isinstance(bench.errors[first[-2]], ResourceExhausted)
    assert modest not in bench.errors
    assert bench.core.waiting == 10


def test_a_request_that_is_refused_nevertheless_drops_nobody_elses() -> None:
    bench = Bench(limit=10)
    for _ in range(6):
        bench.job(caller="greedy")
    for _ in range(4):
        bench.job(caller="modest")
    bench.now = 1.0
    with pytest.raises(ResourceExhausted):  # two of greedy's would give way, but not five
        bench.job(5, caller="new")
    assert bench.errors == {}
    assert bench.core.waiting == 10
    bench.job(2, caller="new")
    assert [job.caller for job in bench.errors] == ["greedy", "greedy"]


def test_an_adapter_decodes_in_the_slots_of_its_base() -> None:
    core = Dispatcher(100, 3, 30.0, 100.0)
    core.open_lane("w1", ModelKey("base", "r1"), 8)
    for name in ("tuned", "other"):
        core.open_lane("w1", ModelKey(name, "r2"), 8, "base")
    core.open_lane("w2", ModelKey("tuned", "r2"), 4)  # with merged weights
    assert core.slots == 12
    core.close_lane("w1", ModelKey("base", "r1"))
    assert core.slots == 12


def test_an_empty_queue_takes_a_job_of_any_size() -> None:
    bench = Bench(limit=10)
    bench.job(50)
    assert bench.core.waiting == 50


def test_what_a_lost_worker_owed_is_sent_to_another_and_its_late_answers_do_not_count() -> None:
    bench = Bench()
    bench.open("w1")
    job = bench.job(3)
    (call,) = bench.calls
    assert bench.core.answered(call, 0, bench.now)
    assert bench.core.lose("w1", "it is gone", bench.now) == [call]
    bench.open("w2")
    assert not bench.core.answered(call, 1, bench.now), "a late answer"
    again = bench.calls[-1]
    assert (again.worker, set(again.owed)) == ("w2", {1, 2})
    bench.answer(again)
    assert job.is_over
    assert bench.core.resent["lost"] == 2


def test_a_failed_sample_avoids_the_worker_even_if_the_other_is_full() -> None:
    bench = Bench()
    bench.open("w1", slots=1)
    bench.job(1)
    bench.end(bench.calls[0], Fault("broke"))
    bench.core.open_lane("w2", KEY, 1)
    bench.job(2, caller="b")
    assert bench.calls[-1].worker == "w2"
    bench.open("w1", slots=1)
    retried = [call for call in bench.calls[1:] if call.job.caller == "a"]
    assert all(call.worker == "w2" for call in retried)


def test_after_the_last_attempt_the_request_fails_and_the_error_names_workers_and_reasons() -> None:
    bench = Bench(attempts=2)
    bench.open("w1", "w2", slots=4)
    job = bench.job()
    bench.end(bench.calls[0], Fault("out of memory"))
    bench.end(bench.calls[1], Fault("broke"))
    error = bench.errors[job]
    assert isinstance(error, Unavailable)
    assert "out of memory" in error.message
    assert all(worker in error.message for worker in ("w1: ", "w2: "))
    assert error.retry_after > 0
    assert bench.core.waiting == bench.core.in_flight == 0


def test_a_request_that_a_lost_worker_ends_stops_its_other_calls() -> None:
    bench = Bench(attempts=1)
    bench.open("w1", "w2", slots=2)
    job = bench.job(6)
    one, other = bench.calls
    assert bench.core.lose(one.worker, "killed", bench.now) == [one, other]
    assert list(bench.errors) == [job]


def test_room_that_the_only_other_request_makes_is_used() -> None:
    bench = Bench(limit=10)
    first = bench.job(10, caller="greedy")
    bench.now = 1.0
    second = bench.job(3, caller="modest")
    assert list(bench.errors) == [first]
    bench.open("w1")
    assert [call.job for call in bench.calls] == [second]


def test_a_stream_that_ends_without_all_samples_is_a_fault() -> None:
    bench = Bench()
    bench.open("w1", "w2")
    bench.job(2, prefix="group")
    call = bench.calls[0]
    bench.core.answered(call, 0, bench.now)
    bench.end(call, None)
    assert set(bench.calls[-1].owed) == {1}
    assert bench.calls[-1].worker != call.worker


def test_a_worker_with_a_fault_gets_nothing_until_its_lane_is_opened_again() -> None:
    bench = Bench()
    bench.open("w1")
    bench.job(1)
    bench.end(bench.calls[0], Fault("broke"))
    assert len(bench.calls) == 1
    bench.open("w1")
    assert len(bench.calls) == 2


def test_a_full_worker_is_held_for_the_delay_that_it_asked_for_and_that_is_no_fault() -> None:
    bench = Bench(attempts=1)
    bench.open("w1")
    job = bench.job(1)
    bench.end(bench.calls[0], Returned(2.0))
    assert len(bench.calls) == 1
    bench.now = 2.5
    assert [call.job for call in bench.pump()] == [job]


def test_an_error_of_the_request_itself_ends_it_and_stops_its_other_calls() -> None:
    bench = Bench()
    bench.open("w1", "w2", slots=2)
    job = bench.job(6)
    one, other = bench.calls
    error = InvalidArgument("prompt", "is too long")
    assert bench.core.ended(one, Refused(error), bench.now) == [other]
    assert bench.errors == {job: error}
    assert bench.core.in_flight == bench.core.waiting == 0


def test_samples_wait_for_a_worker_and_then_callers_are_told_to_try_again_and_why() -> None:
    bench = Bench(patience=30.0)
    job = bench.job(1)
    bench.now = 29.0
    bench.core.tick(bench.now, never)
    assert not bench.errors
    bench.now = 31.0
    bench.core.tick(bench.now, never)
    error = bench.errors[job]
    assert isinstance(error, Unavailable)
    assert "no worker serves m: nobody has it" in error.message


def test_a_worker_that_owes_and_is_silent_is_named() -> None:
    bench = Bench(silence=100.0)
    bench.open("w1", "w2")
    bench.job(2, prefix="group")
    (call,) = bench.calls
    bench.now = 90.0
    bench.core.answered(call, 0, bench.now)
    bench.now = 150.0
    assert bench.core.tick(bench.now, never)[0] == {}
    bench.now = 191.0
    assert list(bench.core.tick(bench.now, never)[0]) == [call.worker]


def test_an_idle_worker_is_not_silent() -> None:
    bench = Bench(silence=100.0)
    bench.open("w1")
    bench.now = 1000.0
    bench.job(1)
    assert bench.core.tick(bench.now + 1, never)[0] == {}


def test_a_withdrawn_job_leaves_nothing_behind() -> None:
    bench = Bench()
    bench.open("w1", slots=1)
    job = bench.job(10)
    assert bench.core.withdraw(job) == bench.calls
    assert bench.core.waiting == bench.core.in_flight == 0
    bench.core.close_lanes("w1")
    assert bench.core._models == {}
    assert bench.core._calls == {}


def test_models_have_queues_of_their_own_and_one_that_is_dropped_ends_its_requests() -> None:
    other = ModelKey("other", "r9")
    bench = Bench()
    bench.open("w1", slots=1)
    bench.job(10)
    bench.open("w1", slots=1, key=other)
    dropped = bench.job(5, key=other)
    assert bench.calls[-1].job is dropped, "a long queue for one model does not delay another model"
    bench.core.drop_model("other", NotFound("gone"))
    assert list(bench.errors) == [dropped]
    assert bench.at("w1") == 2


def test_queues_tell_how_many_wait_and_since_when() -> None:
    bench = Bench()
    bench.now = 5.0
    bench.job(3)
    bench.now = 7.0
    bench.job(1)
    assert bench.core.queues() == {"m": (4, 5.0)}


WORKERS = ["w1", "w2", "w3"]


class Storm(RuleBasedStateMachine):
    """Workers come, go and fail in any order; every sample is answered exactly once or its request has an error."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(attempts=4, limit=60, patience=50.0, silence=200.0)
        self.jobs: list[Job] = []
        self.asked: dict[Job, int] = {}
        self.answers: dict[tuple[Job, int], int] = {}
        self.stale: list[Call] = []
        self.withdrawn: set[Job] = set()

    def live(self) -> list[Call]:
        return [call for call in self.bench.calls if call in call.job.calls]

    @rule(worker=st.sampled_from(WORKERS), slots=st.integers(1, 5))
    def joins(self, worker: str, slots: int) -> None:
        self.bench.open(worker, slots=slots)

    @rule(worker=st.sampled_from(WORKERS))
    def closes(self, worker: str) -> None:
        self.bench.core.close_lanes(worker)

    @rule(worker=st.sampled_from(WORKERS))
    def dies(self, worker: str) -> None:
        self.stale += self.bench.core.lose(worker, "killed", self.bench.now)
        self.bench.pump()

    @rule(count=st.integers(1, 12), caller=st.sampled_from("abc"), prefix=st.sampled_from(["", "x", "y", "z"]))
    def asks(self, count: int, caller: str, prefix: str) -> None:
        try:
            job = self.bench.job(count, caller=caller, prefix=prefix)
        except ResourceExhausted:
            return
        self.jobs.append(job)
        self.asked[job] = count

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def answers_some(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.live()))
        for attempt in list(call.owed)[: data.draw(st.integers(1, 5))]:
            assert self.bench.core.answered(call, attempt, self.bench.now)
            self.answers[call.job, attempt] = self.answers.get((call.job, attempt), 0) + 1
            assert not self.bench.core.answered(call, attempt, self.bench.now), "the same again"
        if not call.owed:
            self.bench.core.ended(call, None, self.bench.now)
        self.bench.pump()

    @precondition(lambda self: self.live())
    @rule(data=st.data(), ending=st.sampled_from([Fault("garbage"), Returned(3.0), Returned(), None]))
    def ends(self, data: st.DataObject, ending: Fault | Returned | None) -> None:
        call = data.draw(st.sampled_from(self.live()))
        self.bench.core.ended(call, ending, self.bench.now)
        self.stale.append(call)
        self.bench.pump()

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), attempt=st.integers(0, 11))
    def answers_too_late(self, data: st.DataObject, attempt: int) -> None:
        call = data.draw(st.sampled_from(self.stale))
        assert not self.bench.core.answered(call, attempt, self.bench.now)
        self.bench.core.ended(call, Fault("late"), self.bench.now)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self.stale += self.bench.core.withdraw(job)
        self.withdrawn.add(job)
        self.bench.pump()

    @rule(seconds=st.floats(0.1, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.bench.now += seconds
        silent, over = self.bench.core.tick(self.bench.now, never)
        self.stale += over
        for worker, reason in silent.items():
            self.stale += self.bench.core.lose(worker, reason, self.bench.now)
        self.bench.pump()

    @invariant()
    def every_unanswered_sample_is_in_one_place(self) -> None:
        core = self.bench.core
        owed = [draw for call in self.live() for draw in call.owed.values()]
        assert len(set(owed)) == len(owed)
        unanswered = [draw for job in self.jobs if not job.is_over for draw in job.draws.values()]
        waiting = [draw for model in core._models.values() for draw in model.waiting._all()]
        assert len(waiting) == core.waiting
        assert sorted(map(id, owed + waiting)) == sorted(map(id, unanswered))
        assert core.in_flight == len(owed)
        for worker in WORKERS:
            assert core.in_flight_at(worker) == sum(len(call.owed) for call in self.live() if call.worker == worker)

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        assert all(count == 1 for count in self.answers.values())

    def teardown(self) -> None:
        """With workers that work, everything is answered."""
        for _ in range(200):
            for worker in WORKERS:
                self.bench.open(worker, slots=5)
            for call in self.live():
                for attempt in list(call.owed):
                    assert self.bench.core.answered(call, attempt, self.bench.now)
                    self.answers[call.job, attempt] = self.answers.get((call.job, attempt), 0) + 1
                self.bench.core.ended(call, None, self.bench.now)
            self.bench.now += 1.0
            self.bench.pump()
            if not self.bench.core.waiting and not self.live():
                break
        for job in self.jobs:
            if job not in self.bench.errors and job not in self.withdrawn:
                answered = [attempt for other, attempt in self.answers if other is job]
                assert sorted(answered) == list(range(self.asked[job]))
        assert all(count == 1 for count in self.answers.values())


Storm.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
test_every_sample_is_answered_exactly_once_while_workers_come_go_and_fail = Storm.TestCase
