"""Text that a model or a file wrote is text, on every page; and requests from elsewhere are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.console.tests.conftest import Reading, Tree

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
    a body button caption code datalist dd details dialog div dl dt figcaption figure footer form h1 h2 h3 head header
    html input kbd label li line link main meta nav ol option p pattern polygon pre rect script section select span
    strong summary svg table tbody td desc th thead title tr ul
    """.split()  # noqa: SIM905 - a list of that many lines would say no more
)


def pages(tree: Tree) -> list[str]:
    kinds = ("seed", "instruction", "response", "verdict", "rejection", "decision", "example", "completion", "run")
    return [
        "/",
        "/data",
        f"/runs/{tree.run.id}",
        f"/compare?a={tree.run.id}&b={tree.run.id}&rows=1",
        *(f"/records?collection={tree.run.id}&kind={kind}" for kind in kinds),
        *(f"/records/{record.id}" for record in tree.records),
    ]


@pytest.mark.parametrize("text", [" ".join(HOSTILE), "\n".join(HOSTILE)], ids=["one line", "lines"])
async def test_no_text_becomes_markup_or_is_hidden(world: World, text: str) -> None:
    tree = world.store(Tree(text))
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
    for host in ("evil.example", "evil.example:8484", "127.0.0.1.evil.example", "[::2]:80", ""):
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
