"""Reading of responses that others published."""

from __future__ import annotations

import pytest

from codealign.coordinator.reading import imported

CODE = "def double(x):\n    return 2 * x\n"
TESTS = "assert double(2) == 4\n"
ANSWER = f"Like this.\n\n```python\n{CODE}```"


@pytest.mark.parametrize(
    "text",
    [
        f"{ANSWER}\n</answer>\n<tests>\n```python\n{TESTS}```\n</tests>",
        f"{ANSWER}\n\n[Tests]\n```python\n{TESTS}```",
        f"{ANSWER}\n\n### Tests\n\n```python\n{TESTS}```\nThese show it.",
        f"{ANSWER}\n\n**Test cases:**\n\n```python\n{TESTS}```",
        f"{ANSWER}\n\n```python\n{TESTS}```\n",
    ],
)
def test_tests_that_the_text_holds_apart_are_parted(text: str) -> None:
    parsed = imported.response(text)
    assert (parsed.answer, parsed.code, parsed.tests) == (ANSWER, CODE, TESTS)


def test_the_references_raw_form_is_read() -> None:
    text = (
        f"[Reasoning]\nDouble it.\n\n[Implementation]\n```python\n{CODE}```\n\n[Explanation]\nIt doubles.\n\n"
        f"[Tests]\n```python\n{TESTS}```"
    )
    parsed = imported.response(text)
    assert (parsed.code, parsed.tests) == (CODE, TESTS)
    assert parsed.answer.endswith("[Explanation]\nIt doubles.")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ANSWER, CODE),
        (f"```\n{CODE}```", CODE),
        (CODE, CODE),
        ("No code.", ""),
        ("yes", ""),
        ("```rust\nfn main() {}\n```", ""),
        (f"```python\n{CODE}```\nThen:\n```python\n{TESTS}```\nand so on.", CODE + "\n" + TESTS),
        (f"A string:\n```python\nx = '''\n[Tests]\n```python\n{TESTS}'''\n```", None),
    ],
)
def test_without_tests_apart_all_of_it_is_the_answer(text: str, code: str | None) -> None:
    parsed = imported.response(text)
    assert (parsed.answer, parsed.tests) == (text.rstrip(), "")
    if code is not None:
        assert parsed.code == code


@pytest.mark.parametrize("tests", [TESTS, f"```python\n{TESTS}```", f"Run this:\n\n```\n{TESTS}```"])
def test_tests_that_are_published_separately_are_taken(tests: str) -> None:
    parsed = imported.response(ANSWER, tests)
    assert (parsed.answer, parsed.code, parsed.tests) == (ANSWER, CODE, TESTS)


@pytest.mark.parametrize("text", ["", "\n", "```", "```python", "[Tests]", "</answer>", "(" * 10_000, "\0", "a\r\nb"])
def test_no_text_raises(text: str) -> None:
    parsed = imported.response(text)
    assert (parsed.code, parsed.tests) == ("", "")
