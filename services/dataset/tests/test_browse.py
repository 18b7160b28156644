"""Browsing a collection: newest first, filtered, in pages whose cost does not depend on the collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from codealign.api.dataset.v1 import dataset_pb2 as wire
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import InvalidArgument
from codealign.common.records import complete
from codealign.dataset import checks
from codealign.dataset.storage import browse as browsing
from codealign.dataset.storage.append import append, join
from codealign.dataset.storage.browse import FIRST, View, browse
from codealign.dataset.storage.database import Database

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make


def ids(database: Database, view: View, size: int = 50) -> list[str]:
    """Return the ids of all pages."""
    found: list[str] = []
    before = FIRST
    while True:
        page = browse(database, view, before=before, limit=size)
        assert len(page.records) <= size
        found += [record.id for record in page.records]
        if page.next is None:
            return found
        before = page.next


def seeds(make: Make, *texts: str) -> list[pb.Record]:
    return [complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=text, name="f"))) for text in texts]


@pytest.mark.parametrize("size", [1, 2, 7, 24, 25, 26, 200])
def test_pages_of_any_size_have_every_record_once_newest_first(database: Database, make: Make, size: int) -> None:
    given = [make.seed(number) for number in range(25)]
    for some in (given[:10], given[10:]):
        append(database, [*some, make.config()], collection="run")
    assert ids(database, View("run", pb.KIND_SEED), size) == [record.id for record in reversed(given)]


def test_groups_are_merged_and_can_be_selected(database: Database, make: Make) -> None:
    seed = make.seed()
    made = [
        make.rejection(seed, pb.KIND_RESPONSE, number, config, reason)
        for number in range(6)
        for config, reason in (("1" * 32, "cut-off"), ("2" * 32, "empty"))
    ]
    append(database, [seed, *made, make.rejection(seed, pb.KIND_INSTRUCTION)], collection="run")
    newest = [record.id for record in reversed(made)]
    assert ids(database, View("run", pb.KIND_REJECTION, rejected_kind=pb.KIND_RESPONSE), 5) == newest
    assert ids(database, View("run", pb.KIND_REJECTION, ("cut-off",)), 4) == newest[1::2]
    assert ids(database, View("run", pb.KIND_REJECTION, ("cut-off", "empty"), "2" * 32), 4) == newest[::2]
    assert ids(database, View("run", pb.KIND_REJECTION, ("unknown",))) == []
    other = make.seed(1)
    kept, dropped = make.decision(seed), make.decision(other, kept=False)
    append(database, [other, kept, dropped], collection="run")
    assert ids(database, View("run", pb.KIND_DECISION, outcome=pb.Decision.OUTCOME_DROPPED)) == [dropped.id]


def test_only_members_are_shown_and_joined_ones_are_the_newest(database: Database, make: Make) -> None:
    own, other = make.seed(1), make.seed(2)
    append(database, [other], collection="elsewhere")
    append(database, [own], collection="run")
    assert ids(database, View("run", pb.KIND_SEED)) == [own.id]
    join(database, [other.id, own.id], "run")
    append(database, [own, other], collection="run")
    assert ids(database, View("run", pb.KIND_SEED)) == [other.id, own.id]


@pytest.mark.parametrize("text", ["needle", "NEEDLE", "é – 🙂", "100%", "it's", "a\\b", "\u202eabc", "{value}"])
def test_a_text_is_found_wherever_it_is(database: Database, make: Make, text: str) -> None:
    made = seeds(make, "x = 1", "before Needle é – 🙂 100% it's a\\b \u202eabc {value} after", "needl")
    append(database, made, collection="run")
    page = browse(database, View("run", pb.KIND_SEED, text=text))
    assert [record.id for record in page.records] == [made[1].id]
    assert page.examined == 3


def test_bytes_that_postgresql_writes_as_digits_are_not_found_as_digits(database: Database, make: Make) -> None:
    made = seeds(make, "x = 1  # \u20ac", "x = 342")
    append(database, made, collection="run")
    assert ids(database, View("run", pb.KIND_SEED, text="342"), 1) == [made[1].id]


def test_a_text_is_found_in_a_body_with_zero_bytes(database: Database, make: Make) -> None:
    result = sb.Result(verdict=sb.VERDICT_RAISED, wall_seconds=1.0, detail="a needle", stdout=sb.Output(data=b"\0\xff"))
    seed = make.seed()
    verdict = complete(pb.Record(kind=pb.KIND_VERDICT, parents=[seed.id], verdict=pb.VerdictBody(result=result)))
    append(database, [seed, verdict], collection="run")
    assert ids(database, View("run", pb.KIND_VERDICT, ("RAISED",), text="needle")) == [verdict.id]


def test_a_category_is_compared_exactly(database: Database, make: Make) -> None:
    seed = make.seed()

    def asked(number: int, **fields: str) -> pb.Record:
        body = pb.Instruction(**fields)
        return complete(pb.Record(kind=pb.KIND_INSTRUCTION, parents=[seed.id], attempt=number, instruction=body))

    looks_like = pb.Instruction(category="class").SerializeToString().decode()
    made = [asked(0, text="a", category="class"), asked(1, text=looks_like), asked(2, category="classes")]
    append(database, [seed, *made], collection="run")
    assert ids(database, View("run", pb.KIND_INSTRUCTION, category="class"), 1) == [made[0].id]


def test_a_rare_text_is_searched_for_in_bounded_steps(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MOST_EXAMINED", 4)
    monkeypatch.setattr(browsing, "_CHUNK", 2)
    made = seeds(make, "needle", *(f"x = {number}" for number in range(9)))
    append(database, made, collection="run")
    first = browse(database, View("run", pb.KIND_SEED, text="needle"))
    assert (first.records, first.examined) == ([], 4)
    assert first.next is not None
    assert ids(database, View("run", pb.KIND_SEED, text="needle")) == [made[0].id]


def test_a_page_ends_early_where_it_grows_too_large(database: Database, make: Make) -> None:
    made = seeds(make, *(str(number) * 1000 for number in range(5)))
    append(database, made, collection="run")
    page = browse(database, View("run", pb.KIND_SEED), max_bytes=2500)
    assert [record.id for record in page.records] == [made[4].id, made[3].id]
    assert page.next is not None
    rest = browse(database, View("run", pb.KIND_SEED), before=page.next)
    assert [record.id for record in rest.records] == [record.id for record in reversed(made[:3])]


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (wire.BrowseRequest(kind=pb.KIND_SEED), "collection"),
        (wire.BrowseRequest(collection="run"), "kind"),
        (wire.BrowseRequest(collection="run", kind=pb.KIND_SEED, category="class"), "category"),
        (wire.BrowseRequest(collection="run", kind=pb.KIND_SEED, text="x" * 501), "text"),
        (wire.BrowseRequest(collection="run", kind=pb.KIND_SEED, stage_config_id="x"), "stage_config_id"),
        (wire.BrowseRequest(collection="run", kind=pb.KIND_SEED, labels=["a"] * 101), "labels"),
    ],
)
def test_a_wrong_request_names_its_field(request_: wire.BrowseRequest, path: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checks.view(request_)
    assert caught.value.violations[0][0] == path


def test_a_token_belongs_to_its_request() -> None:
    request = wire.BrowseRequest(collection="run", kind=pb.KIND_SEED)
    request.page_token = checks.browse_token(request, (1234, "a" * 32))
    assert checks.browse_start(request) == (1234, "a" * 32)
    request.text = "other"
    with pytest.raises(InvalidArgument, match="other fields"):
        checks.browse_start(request)
    question = checks._question(request)
    forged = [
        checks._token(f"{'a' * 32}{question}{position}") for position in ("9" * 19, "9" * 5000, "\u0663", "-1", "")
    ]
    for token in ("nonsense", checks._token("a" * 32), *forged):
        request.page_token = token
        with pytest.raises(InvalidArgument, match="page_token"):
            checks.browse_start(request)
