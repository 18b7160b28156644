"""Parsing foreign source gives no warnings in any thread, and still raises errors."""

from __future__ import annotations

import ast
import threading
import warnings

import pytest

from codealign.common.foreign_python import without_warnings

ODD = "x = '\\d'\n"
"""Source for which `compile` warns."""


def test_the_source_does_warn_otherwise() -> None:
    with pytest.warns(Warning, match="invalid escape sequence"):
        compile(ODD, "odd", "exec")


@pytest.mark.filterwarnings("error")
def test_no_warning_is_given_also_where_warnings_are_errors() -> None:
    with without_warnings():
        compile(ODD, "odd", "exec")


@pytest.mark.parametrize("text", ["def", "x = 1\0", "(" * 500 + ")" * 500])
def test_errors_are_raised_and_the_filters_are_as_before(text: str) -> None:
    before = list(warnings.filters)
    with pytest.raises((SyntaxError, ValueError, MemoryError)), without_warnings():
        ast.parse(text)
    assert warnings.filters == before


def test_threads_do_not_restore_each_others_filters() -> None:
    before, order = list(warnings.filters), list[str]()
    inside, trying = threading.Event(), threading.Event()

    def first() -> None:
        with without_warnings():
            inside.set()
            trying.wait(10)
            order.append("the first ends")

    def second() -> None:
        trying.set()
        with without_warnings():
            order.append("the second begins")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert order == ["the first ends", "the second begins"]
    assert warnings.filters == before
