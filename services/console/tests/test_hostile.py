"""Text that a model or a file wrote is text, on every page; and requests from elsewhere are refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.records import complete
from codealign.dataset.storage.append import append
from services.console.tests.conftest import Reading, Tree
from services.console.tests.examples import add_series, add_target, experiment

if TYPE_CHECKING:
    from services.console.tests.conftest import World

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onmouseover='alert(3)' x='",
    "</pre></code></details><iframe src=//evil.example></iframe>",
    "javascript:alert(5)",
    "{{ 7 * 7 }}{% raw %}",
    "```\n<svg onload=alert(6)>\n```",
    "&lt;b&gt;<b>bold</b>",
    "\x1b[31mred\x00\u202egnp.exe\u200b\u2066",
    "](javascript:alert(7))",
    "\U000e0041\ufffe\ufffd \N{REPLACEMENT CHARACTER}",
)
ELEMENTS = frozenset(
    """
    a body button caption circle code datalist dd desc details dialog div dl dt figcaption figure footer form h1 h2 h3
    head header html input kbd label li line link main meta nav ol option p path pattern polygon pre rect script
    section select span strong summary svg table tbody td text th thead title tr ul
    """.split()  # noqa: SIM905 - a list of that many lines would say no more
)


def pages(tree: Tree) -> list[str]:
    kinds = ("seed", "instruction", "response", "verdict", "rejection", "decision", "example", "completion", "run")
    return [
        "/",
        "/data",
        "/experiments",
        f"/experiments/{'d' * 32}",
        f"/runs/{tree.run.id}",
        f"/compare?a={tree.run.id}&b={tree.run.id}&rows=1",
        *(f"/records?collection={tree.run.id}&kind={kind}" for kind in kinds),
        *(f"/records/{record.id}" for record in tree.records),
    ]


@pytest.mark.parametrize("text", [" ".join(HOSTILE), "\n".join(HOSTILE)], ids=["one line", "lines"])
async def test_no_text_becomes_markup_or_is_hidden(world: World, text: str) -> None:
    tree = world.store(Tree(text))
    for ended in (False, True):
        add_target(world.coordinator.reports[tree.run.id], ended=ended, text=text)
    add_series(world.coordinator.reports[tree.run.id], ["1" * 32, tree.run.id], text=text)
    world.coordinator.experiments.append(experiment(tree.run.id, text=text))
    for url in pages(tree):
        html = await world.page(url)
        read = Reading(html)
        assert {tag for tag, _ in read.elements} <= ELEMENTS, url
        for tag, given in read.elements:
            assert not [name for name in given if name.startswith("on") or name == "style"], (url, tag, given)
            for name in ("href", "src", "action"):
                assert (given.get(name) or "/").startswith(("/", "#")), (url, tag, given)
            if tag == "script":
                assert given == {"src": "/static/console.js", "defer": None}
        for hidden in "\x00\x1b\u202e\u2066\u200b\U000e0041":
            assert hidden not in html, url


async def test_a_filter_is_text_too(world: World) -> None:
    tree = world.store(Tree())
    given = {"collection": tree.run.id, "kind": "seed", "text": HOSTILE[1], "label": HOSTILE[2]}
    answer = await world.browser.get("/records", params=given)
    assert "img" not in {tag for tag, _ in Reading(answer.text).elements}
    assert answer.status_code == 200


@pytest.mark.parametrize("text", ["a\x00b", "x" * 501, "\udcff"])
async def test_a_text_that_cannot_be_searched_for_is_an_explained_error(world: World, text: str) -> None:
    tree = world.store(Tree())
    raw = text.encode("utf-8", "surrogateescape")
    url = f"/records?collection={tree.run.id}&kind=seed&text=" + "".join(f"%{byte:02x}" for byte in raw)
    answer = await world.browser.get(url)
    assert answer.status_code in (200, 404)
    assert "a bug" not in answer.text


async def test_other_host_names_and_methods_are_refused(world: World) -> None:
    refused = (
        "evil.example",
        "evil.example:8484",
        "127.0.0.1.evil.example",
        "[::2]:80",
        "",
        "localhost:x@evil.example",
    )
    for host in (*refused, "127.0.0.1:80@evil.example", "[::1]evil.example", "127.0.0.1:80, evil.example"):
        answer = await world.browser.get("/", headers={"Host": host})
        assert answer.status_code == 421, host
    for host in ("localhost:1234", "127.0.0.1", "[::1]:8484", "LOCALHOST"):
        assert (await world.browser.get("/", headers={"Host": host})).status_code == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert (await world.browser.request(method, "/")).status_code == 405


async def test_every_answer_forbids_scripts_and_addresses_from_elsewhere(world: World) -> None:
    for url in ("/", "/nothing", "/static/console.js", "/static/console.css", "/static/report.css", "/static/icon.svg"):
        headers = (await world.browser.get(url)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert (await world.browser.get("/static/../settings.py")).status_code == 404
    assert (await world.browser.get("/records/")).status_code == 404, "a redirect would name a host"


async def test_numbers_and_times_that_are_none_are_shown_as_unknown(world: World) -> None:
    for number in (math.nan, math.inf, -math.inf):
        strange = sb.Result(verdict=sb.VERDICT_PASSED, wall_seconds=number, cpu_seconds=number, queue_seconds=number)
        record = pb.Record(kind=pb.KIND_VERDICT)
        record.verdict.result.CopyFrom(strange)
        append(world.database, [complete(record)], collection="strange")
        assert "PASSED" in await world.words(f"/records/{record.id}")
    seconds = pb.Provenance(model="nano", seconds=math.inf)
    late = pb.Record(kind=pb.KIND_INSTRUCTION, instruction=pb.Instruction(text="late"), provenance=seconds)
    late.provenance.created_at.seconds = 10**15
    append(world.database, [complete(late)], collection="strange")
    assert "late" in await world.words(f"/records/{late.id}")
    assert "late" in await world.words("/records?collection=strange&kind=instruction")


async def test_a_chain_deeper_than_pythons_stack_is_shown_up_to_the_limit(world: World) -> None:
    chain: list[pb.Record] = []
    for number in range(700):
        parents = [chain[-1].id] if chain else []
        task = pb.Instruction(text=f"step {number}.")
        chain.append(complete(pb.Record(kind=pb.KIND_INSTRUCTION, parents=parents, instruction=task)))
    append(world.database, chain, collection="chain")
    for place in (0, 350, 699):
        text = await world.words(f"/records/{chain[place].id}")
        assert "There are more records around this one than a page shows" in text
        for near in (place - 1, place + 1):
            assert f"step {near}." in text or not 0 <= near < 700


async def test_texts_around_a_record_are_bounded_together(world: World) -> None:
    seed = complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="x = 1\n", name="f")))
    code = pb.Response(code="print(1 + 1)\n" * 200)
    answers = [
        complete(pb.Record(kind=pb.KIND_RESPONSE, parents=[seed.id], attempt=number, response=code))
        for number in range(200)
    ]
    append(world.database, [seed, *answers], collection="many")
    page = await world.page(f"/records/{seed.id}")
    assert len(page) < 500_000
    assert "The tree leaves out some texts" in page
    assert all(f"/records/{answer.id}" in page for answer in answers)


@pytest.mark.parametrize(
    "filters", ["kind=nonsense", "kind=verdict&outcome=kept", "kind=decision&outcome=x", "stage=x"]
)
async def test_a_filter_that_would_select_nothing_it_names_is_refused(world: World, filters: str) -> None:
    tree = world.store(Tree())
    await world.page(f"/records?collection={tree.run.id}&{filters}", 404)


@pytest.mark.parametrize("hidden", ["\xad", "\u3164", "\u115f", "\U000e0100"])
async def test_fillers_and_variation_selectors_are_made_visible(world: World, hidden: str) -> None:
    tree = world.store(Tree(f"a{hidden}b"))
    assert f"⟨U+{ord(hidden):04X}⟩" in await world.page(f"/records/{tree.row.id}")
