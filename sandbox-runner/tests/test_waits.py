"""Time that counts towards a limit: without the seconds in which a program had no processor."""

from __future__ import annotations

import pytest

from codealign.runner.waits import Clock, Waits


class Machine:
    """Executions in a sandbox, with a clock that the test advances."""

    def __init__(self, *slots: int) -> None:
        self.time = 100.0
        self.given = 7.0
        self.ready = dict.fromkeys(slots, 0.0)
        self.waits = Waits(lambda: self.time)
        self.waits.given(self.given)
        for slot in slots:
            self.waits.begin(slot)

    def run(self, seconds: float, given: float, **ready: float) -> None:
        """Advance in steps of half a second, with processors given and wanted by each slot at these rates."""
        for _ in range(round(seconds * 2)):
            self.time += 0.5
            self.given += given / 2
            for name, rate in ready.items():
                slot = int(name.removeprefix("slot"))
                self.ready[slot] += rate / 2
                self.waits.note(slot, self.ready[slot])
            self.waits.given(self.given)

    def seen(self, slot: int = 0) -> tuple[float, float]:
        return round(self.waits.waited(slot), 6), round(self.waits.stalled(slot), 6)


@pytest.mark.parametrize(
    ("given", "wanted", "waited", "stalled"),
    [
        (1.0, 1.0, 0.0, 0.0),
        (1.2, 1.0, 0.0, 0.0),  # The time of the sandbox's own kernel is not a wait.
        (0.5, 1.0, 5.0, 5.0),
        (0.0, 1.0, 10.0, 10.0),
        (0.05, 0.05, 0.0, 0.0),  # It sleeps.
        (0.1, 0.2, 1.0, 1.0),  # It sleeps most of the time, and has to wait otherwise.
        (2.0, 8.0, 60.0, 0.0),  # It wants more than there is, and receives everything.
        (1.0, 2.0, 10.0, 0.0),  # Only one processor is guaranteed.
        (0.5, 2.0, 15.0, 5.0),
    ],
)
def test_what_a_program_was_ready_for_and_did_not_get_it_waited_for(
    given: float, wanted: float, waited: float, stalled: float
) -> None:
    machine = Machine(0)
    machine.run(10, given, slot0=wanted)
    assert machine.seen() == (waited, stalled)


def test_without_a_word_from_outside_nothing_is_known() -> None:
    waits = Waits(lambda: 0.0)
    waits.begin(0)
    waits.note(0, 5.0)
    assert not waits.are_seen
    assert (waits.waited(0), waits.stalled(0)) == (0.0, 0.0)
    waits.given(3.0)
    assert waits.are_seen
    assert waits.waited(0) == 0.0, "the first word is what the next one is compared with"


def test_slots_share_what_the_box_got_by_what_they_were_ready_for() -> None:
    machine = Machine(0, 1)
    machine.run(10, 1.0, slot0=1.0, slot1=1.0)
    assert machine.seen(0) == machine.seen(1) == (5.0, 5.0)
    machine.run(10, 1.0, slot0=1.0, slot1=0.0)
    assert machine.seen(0) == machine.seen(1) == (5.0, 5.0)


def test_what_an_execution_used_before_the_next_began_is_not_the_next_ones() -> None:
    machine = Machine(0)
    machine.time += 0.5
    machine.waits.note(0, 0.5)
    machine.waits.end(0)
    machine.waits.begin(0)
    machine.ready[0] = 0.0
    machine.given += 0.5
    machine.run(0.5, 1.0, slot0=1.0)
    assert machine.seen() == (0.0, 0.0)


def test_a_rest_makes_up_for_no_wait() -> None:
    machine = Machine(0)
    machine.run(10, 0.3, slot0=0.0)
    machine.run(4, 0.5, slot0=1.0)
    assert machine.seen() == (2.0, 2.0)


def test_the_clock_stops_while_there_is_no_processor_and_not_for_ever() -> None:
    clock = Clock(100.0, 10.0)
    assert clock.deadline == 110.0
    clock.stop_for(4.0)
    clock.stop_for(3.0)
    assert (clock.deadline, clock.stalled) == (114.0, 4.0)
    clock.stop_for(1e9)
    assert clock.deadline == 130.0


@pytest.mark.parametrize(("share", "passes"), [(1.0, True), (0.5, True), (0.35, True), (0.1, False)])
def test_a_program_that_needs_most_of_its_limit_has_it_beside_any_neighbour(share: float, passes: bool) -> None:
    """Six of ten allowed seconds of work: it ends in time unless it receives very little of a processor."""
    machine, clock = Machine(0), Clock(100.0, 10.0)
    while machine.given - 7.0 < 6.0 and machine.time < clock.deadline:
        machine.run(0.5, share, slot0=1.0)
        clock.stop_for(machine.waits.stalled(0))
    assert (machine.given - 7.0 >= 6.0) is passes
    assert machine.time <= 130.0


def test_an_endless_loop_has_its_limit_and_no_more() -> None:
    machine, clock = Machine(0), Clock(100.0, 10.0)
    while machine.time < clock.deadline:
        machine.run(0.5, 0.5, slot0=1.0)
        clock.stop_for(machine.waits.stalled(0))
    assert machine.time == 120.0
    assert machine.given - 7.0 == 10.0
