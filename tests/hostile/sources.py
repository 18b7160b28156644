"""Cases with sources that are unsuitable for files: null bytes, other encodings, megabytes; and refused requests."""

from __future__ import annotations

from typing import Any

from tests.hostile.corpus import Case

KIB = 1024
MIB = 1024 * KIB
RETURNS_ONE = "def f():\n    return 1\n"
ONE = "assert f() == 1\n"


def _case(name: str, tries: str, verdict: str, code: str, tests: str = "assert True", **rest: Any) -> Case:
    return Case(f"sources/{name}", tries, tuple(verdict.split(" or ")), code, tests, **rest)


def _nested(depth: int) -> str:
    return "".join(f"{' ' * level}if True:\n" for level in range(depth)) + " " * depth + "x = 1\n"


def _elif_chain(length: int) -> str:
    return "x = 0\nif x == -1:\n    pass\n" + "".join(f"elif x == {n}:\n    assert {n} == 0\n" for n in range(length))


CASES = [
    _case("null_byte", "a null byte, where C would see the end", "SYNTAX_ERROR", "x = 1\n\0raise ValueError\n"),
    _case(
        "utf_16",
        "two bytes for each letter",
        "SYNTAX_ERROR",
        RETURNS_ONE.encode("utf-16").decode("latin-1"),
        "assert True",
    ),
    _case(
        "cookie_of_another_encoding",
        "says that it is UTF-16, which a program that is text already cannot be",
        "PASSED",
        f"# -*- coding: utf-16 -*-\n{RETURNS_ONE}",
        ONE,
    ),
    _case(
        "byte_order_mark",
        "begins with two byte order marks, of which one is no part of a text",
        "SYNTAX_ERROR",
        f"\ufeff\ufeff{RETURNS_ONE}",
        ONE,
    ),
    _case(
        "line_ends_of_unicode",
        "hides a statement behind line ends that are none to Python",
        "PASSED",
        f"{RETURNS_ONE}# \u2028def f(): return 2\u2029def f(): return 3\x85def f(): return 4\n",
        ONE,
    ),
    _case(
        "written_from_right_to_left",
        "shows another program than the one that runs, by marks of direction",
        "PASSED",
        f"{RETURNS_ONE}s = '\u202e \u2066# def f(): return 2\u2069 \u2066'\n",
        ONE,
    ),
    _case("tabs_and_spaces", "indents with both", "SYNTAX_ERROR", "if True:\n        x = 1\n\ty = 2\n"),
    _case("parentheses", "five thousand parentheses", "SYNTAX_ERROR", "(" * 5000 + ")" * 5000),
    _case("indentation", "two hundred levels of indentation", "SYNTAX_ERROR", _nested(200)),
    _case("signs", "a hundred thousand signs before a number", "SYNTAX_ERROR", "x = " + "-" * 100_000 + "1\n"),
    _case(
        "long_sum", "a hundred thousand additions in one expression", "SYNTAX_ERROR", "x = " + "1+" * 100_000 + "1\n"
    ),
    _case("many_branches", "a chain of branches that Python compiles", "PASSED", "", _elif_chain(1500)),
    _case("debug_off", "assigns what switches assertions off", "SYNTAX_ERROR", "__debug__ = False\n"),
    _case(
        "future_of_its_own",
        "imports a future that should be no affair of the tests",
        "PASSED",
        "from __future__ import annotations\n",
        "def g(x: print('evaluated')): ...\nassert g.__annotations__ == {'x': None}\n",
    ),
    _case(
        "names_of_the_instrument",
        "tests that hold the very strings with which their assertions are marked",
        "PASSED",
        "",
        "marks = ('codealign:witness', 'codealign:failure')\nmark = 'codealign:event'\n"
        "assert len(mark) == 15\nassert [len(mark) for mark in marks] == [17, 17]\n",
    ),
    _case(
        "one_long_line", "a line of nine hundred thousand characters", "PASSED", f"x = '{'y' * 900_000}'\n", "assert x"
    ),
    _case("too_long", "more source than is taken", "REFUSED", "#" * (MIB + 1)),
    _case("nothing", "no source at all", "REFUSED", "", ""),
    _case("no_time", "a limit that nothing meets", "TIMED_OUT", "x = 1", limits={"wall_seconds": 0.001}),
    _case("file_above", "a file above its folder", "REFUSED", "x = 1", files={"../hostile": b"x"}),
    _case("file_and_folder", "a file that is also a folder", "REFUSED", "x = 1", files={"a": b"", "a/b": b""}),
    _case("file_with_a_long_name", "a file whose name no disk holds", "REFUSED", "x = 1", files={"n" * 300: b""}),
    _case(
        "file_that_replaces_a_module",
        "a file that the tests' imports would find before the library's",
        "PASSED",
        "",
        "import json\nassert json.dumps([1]) == '[1]'\n",
        files={"json.py": b"raise SystemExit(0)", "unittest/__init__.py": b"", "sitecustomize.py": b"1/0"},
    ),
    _case(
        "file_imported_before_its_time",
        "a file with the name of a module that is imported for the tests before the program begins",
        "FAILED_ASSERTION",
        "def f(): return 1\n",
        "import unittest  # testing\n"
        "class T(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(), 2)\nunittest.main()\n",
        files={
            "numpy/__init__.py": b"",
            "numpy/testing.py": b"import unittest\nunittest.TestCase.assertEqual = lambda *arguments: None\n",
        },
    ),
    _case(
        "files_of_one_byte",
        "more files than its disk has pages",
        "REFUSED or DISK_LIMIT",
        "x = 1",
        files={f"file-{n}": b"x" for n in range(200)},
        limits={"disk_bytes": 64 * KIB},
    ),
    _case(
        "input_that_nobody_reads",
        "eight megabytes of standard input, left there",
        "PASSED",
        "x = 1",
        stdin=bytes(8 * MIB),
    ),
    _case(
        "little_memory",
        "a source that does not compile in the memory that it is given",
        "SYNTAX_ERROR",
        "x = [\n" + "'a',\n" * 150_000 + "]\n",
        limits={"memory_bytes": 16 * MIB},
    ),
]
