"""The breaker opens only when most of a stage's recent items fail in the same way."""

from __future__ import annotations

import pytest

from codealign.coordinator.pipelines import INTERNAL_ERROR
from codealign.coordinator.runs.breaker import LEAST, SIZE, UNDECIDED, Breaker


@pytest.mark.parametrize(
    "reason", [INTERNAL_ERROR, "prompt-refused", "prompt-too-long", "content-filter", "REFUSED", UNDECIDED]
)
def test_it_opens_at_half_of_the_last_items_and_says_what_was_seen_last(reason: str) -> None:
    breaker = Breaker()
    for number in range(SIZE):
        breaker.saw("stage", None)
        breaker.saw("stage", reason if number % 2 else None, f"number {number}")
    assert not breaker.reason, "a quarter of the items"
    number = 0
    while not breaker.reason:
        breaker.saw("stage", reason, f"number {number}")
        number += 1
    assert number <= SIZE / 2
    assert breaker.reason.startswith(f"the breaker: stage: 25 of the last {SIZE} items ")
    assert f"the last one: number {number - 1}" in breaker.reason


def test_what_cannot_be_read_or_fails_its_tests_never_opens_it() -> None:
    breaker = Breaker()
    for reason in ("cut-off", "empty", "FAILED_ASSERTION", "TIMED_OUT", None) * SIZE:
        breaker.saw("stage", reason)
    assert not breaker.reason


def test_few_items_open_nothing_and_stages_are_told_apart() -> None:
    breaker = Breaker()
    for stage in ("one", "other", "third"):
        for _ in range(LEAST - 1):
            breaker.saw(stage, INTERNAL_ERROR)
    assert not breaker.reason
    breaker.saw("other", INTERNAL_ERROR)
    assert "other: 20 of the last 20" in breaker.reason


def test_the_first_reason_stays() -> None:
    breaker = Breaker()
    for _ in range(LEAST):
        breaker.saw("one", INTERNAL_ERROR)
    reason = breaker.reason
    for _ in range(SIZE):
        breaker.saw("other", "REFUSED")
    assert breaker.reason == reason
