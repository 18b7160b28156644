"""Leases: one holder at a time, and the previous one fenced off."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from codealign.common.errors import FailedPrecondition, NotFound, Unavailable
from codealign.dataset.storage import leases, lookup
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.leases import Fence, Lease

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make


def fence(lease: Lease) -> Fence:
    return Fence(lease.name, lease.token)


def test_a_held_lease_is_unavailable_with_the_time_left(database: Database) -> None:
    lease = leases.acquire(database, "run", "one", 20)
    assert lease.token == 1
    assert abs(lease.expires_at - time.time() - 20) < 5
    with pytest.raises(Unavailable, match="held by one") as caught:
        leases.acquire(database, "run", "two", 20)
    assert 15 < caught.value.retry_after <= 20


def test_the_same_holder_gets_it_again_with_a_new_token(database: Database) -> None:
    first = leases.acquire(database, "run", "one", 20)
    second = leases.acquire(database, "run", "one", 20)
    assert second.token == first.token + 1
    with pytest.raises(FailedPrecondition, match="not held with token 1"):
        leases.renew(database, fence(first), 20)


def test_an_expired_lease_goes_to_the_next_and_its_old_token_is_dead(database: Database, make: Make) -> None:
    old = leases.acquire(database, "run", "one", 0.05)
    time.sleep(0.1)
    with pytest.raises(FailedPrecondition, match="expired"):
        append(database, [make.seed()], fence=fence(old))
    with pytest.raises(FailedPrecondition, match="expired"):
        leases.renew(database, fence(old), 20)
    new = leases.acquire(database, "run", "two", 20)
    assert new.token > old.token
    with pytest.raises(FailedPrecondition, match="two has it"):
        append(database, [make.seed()], fence=fence(old))
    assert lookup.count(database) == []
    append(database, [make.seed()], fence=fence(new))
    assert len(lookup.count(database)) == 1


def test_renewal_keeps_the_token_and_moves_the_end(database: Database) -> None:
    lease = leases.acquire(database, "run", "one", 10)
    renewed = leases.renew(database, fence(lease), 100)
    assert renewed.token == lease.token
    assert renewed.expires_at - lease.expires_at > 80


def test_a_released_lease_is_free_and_its_token_is_not_used_again(database: Database, make: Make) -> None:
    lease = leases.acquire(database, "run", "one", 100)
    leases.release(database, fence(lease))
    leases.release(database, fence(lease))
    with pytest.raises(FailedPrecondition):
        append(database, [make.seed()], fence=fence(lease))
    next_one = leases.acquire(database, "run", "two", 100)
    assert next_one.token == lease.token + 1
    leases.release(database, fence(lease))  # a late release does not affect the next holder
    assert leases.renew(database, fence(next_one), 100).holder == "two"


def test_an_unknown_lease_is_not_found(database: Database, make: Make) -> None:
    nowhere = Fence("nowhere", 1)
    with pytest.raises(NotFound):
        leases.renew(database, nowhere, 10)
    with pytest.raises(NotFound):
        leases.release(database, nowhere)
    with pytest.raises(NotFound):
        append(database, [make.seed()], fence=nowhere)


def test_of_many_that_ask_at_once_one_gets_it(database: Database) -> None:
    def ask(holder: int) -> int:
        try:
            leases.acquire(database, "run", f"holder {holder}", 60)
        except Unavailable:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1


def test_renewals_get_through_a_stream_of_appends(database: Database, make: Make) -> None:
    lease = leases.acquire(database, "run", "one", 60)

    def add(number: int) -> None:
        append(database, [make.seed(number)], collection="run", fence=fence(lease))

    with ThreadPoolExecutor(4) as pool:
        adding = [pool.submit(add, number) for number in range(80)]
        for _ in range(5):
            leases.renew(database, fence(lease), 60)
        for done in adding:
            done.result()
    assert lookup.collections(database) == [("run", 80)]
