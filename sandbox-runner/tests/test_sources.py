"""Sources as Python sees them: their lines, and the path of their file."""

from __future__ import annotations

import pytest

from codealign.runner import sources


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\nb\n", ["a\n", "b\n"]),
        ("a\r\nb\rc", ["a\n", "b\n", "c"]),
        (
            "x = 'a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i'\ny",
            ["x = 'a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i'\n", "y"],
        ),
        ("\ufeffa\nb", ["a\n", "b"]),
        ("a\n\ufeffb", ["a\n", "\ufeffb"]),
    ],
)
def test_lines_end_where_python_ends_them(source: str, lines: list[str]) -> None:
    assert sources.lines(source) == lines


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ([], "solution.py"),
        (["data/solution.py", "other.py"], "solution.py"),
        (["solution.py"], "_solution.py"),
        (["solution.py/x", "_solution.py"], "__solution.py"),
    ],
)
def test_the_file_of_a_program_takes_no_other_files_place(files: list[str], name: str) -> None:
    assert sources.path_beside(files) == f"/box/work/{name}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(x): return x + 1", False),
        ("class Solution:\n    def solution(self): pass", False),
        ("import os\nprint(os.listdir('.'))", False),
        ("print(__file__)", True),
        ("import sys\nprint(sys.argv[0])", True),
        ("import importlib, solution\nimport solution", True),
        ("open('t.py', 'w').write('import os\\nfrom solution import f\\n')", True),
        ("run([sys.executable, '-m', 'solution'])", True),
        ("fromage = 'the -m option of a solution'", False),
    ],
)
def test_a_file_is_written_for_a_program_that_can_tell(code: str, expected: bool) -> None:
    assert sources.needs_file(code, "assert f(1) == 2") is expected
    assert sources.needs_file("x = 1", code) is expected
