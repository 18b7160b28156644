"""The seed reader."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import dataset_pb2_grpc as rpc
from codealign.cli.collecting import store_seeds
from codealign.cli.failures import Failure
from codealign.cli.seeds import collection_name, read, read_folder, seed_record

FUNCTION = 'def f(x):\n    """Double it."""\n    return 2 * x\n'


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_documented_function_becomes_a_seed(tmp_path: Path) -> None:
    write(tmp_path, "pkg/mod.py", "import re\n\n\n" + FUNCTION)
    (seed,) = read_folder(tmp_path).seeds
    assert (seed.code, seed.name, seed.docstring) == (FUNCTION, "f", "Double it.")
    assert (seed.path, seed.line, list(seed.imports), seed.license) == ("pkg/mod.py", 4, [], "")


def test_methods_and_undocumented_functions_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.py",
        'class C:\n    def m(self):\n        """Doc."""\n\ndef g(x):\n    return x\n\ndef h():\n    """ """\n'
        + FUNCTION,
    )
    collected = read_folder(tmp_path)
    assert [seed.name for seed in collected.seeds] == ["f"]
    assert collected.undocumented == 2


def test_functions_inside_module_level_blocks_lose_their_indentation(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.py",
        'if True:\n    def f(x):\n        """Doc.\n\n        More.\n        """\n        return """a\n  b"""\n',
    )
    (seed,) = read_folder(tmp_path).seeds
    assert seed.code == 'def f(x):\n    """Doc.\n\n    More.\n    """\n    return """a\n  b"""\n'
    assert seed.line == 2


def test_decorators_belong_to_the_source_and_the_line_is_the_def(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "import functools\n@functools.cache\n" + FUNCTION)
    (seed,) = read_folder(tmp_path).seeds
    assert seed.code.startswith("@functools.cache\ndef f")
    assert seed.line == 3
    assert list(seed.imports) == ["import functools"]


def test_async_functions_are_functions(tmp_path: Path) -> None:
    write(tmp_path, "a.py", 'async def f(x):\n    """Doc."""\n    return await x\n')
    assert [seed.name for seed in read_folder(tmp_path).seeds] == ["f"]


def test_a_file_with_a_syntax_error_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    write(tmp_path, "bad.py", "x = 1\ndef (:\n")
    write(tmp_path, "good.py", FUNCTION)
    collected = read_folder(tmp_path)
    assert [str(problem) for problem in collected.problems] == ["bad.py:2: invalid syntax"]
    assert len(collected.seeds) == 1
    assert collected.files == 2


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"# coding: no-such-codec\n", id="unknown encoding"),
        pytest.param(b"x = '\xff'\n", id="not UTF-8"),
        pytest.param(b"# coding: rot13\nx = 1\n", id="no text encoding"),
        pytest.param(b"x = 1\x00\n", id="null byte"),
        pytest.param(b"x = " + b"(" * 3000 + b")" * 3000, id="nested too deeply"),
        pytest.param(b'def f(x):\n    """Doc."""\n    global x\n', id="does not compile"),
    ],
)
def test_an_unreadable_file_is_a_problem_and_no_crash(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "bad.py", content)
    write(tmp_path, "good.py", FUNCTION)
    collected = read_folder(tmp_path)
    assert [problem.path for problem in collected.problems] == ["bad.py"]
    assert [seed.path for seed in collected.seeds] == ["good.py"]


@pytest.mark.parametrize(
    ("content", "docstring"),
    [
        pytest.param(
            "# -*- coding: latin-1 -*-\ndef f(x):\n    '''Größe.'''\n    return x\n".encode("latin-1"),
            "Größe.",
            id="latin-1",
        ),
        pytest.param(b"\xef\xbb\xbfdef f(x):\n    '''Doc.'''\n    return x\n", "Doc.", id="byte-order mark"),
        pytest.param(b"def f(x):\r\n    '''Doc.'''\r\n    return x\r\n", "Doc.", id="CRLF"),
        pytest.param(b"def f(x):\r    '''Doc.'''\r    return x\r", "Doc.", id="CR"),
        pytest.param(b"\x0cdef f(x):\n    '''Doc.'''\n    return x\n", "Doc.", id="form feed"),
        pytest.param(b"def f(x):\n    '''a\\ud800b'''\n    return x\n", "a\\ud800b", id="lone surrogate"),
    ],
)
def test_encodings_and_line_ends(tmp_path: Path, content: bytes, docstring: str) -> None:
    write(tmp_path, "a.py", content)
    collected = read_folder(tmp_path)
    (seed,) = collected.seeds
    assert seed.docstring == docstring
    assert "\r" not in seed.code
    assert ast.parse(seed.code)
    assert seed_record(seed).id


def test_what_follows_on_the_last_line_is_not_the_functions(tmp_path: Path) -> None:
    write(tmp_path, "a.py", 'def f(x): "Doc."; return x\n')
    (seed,) = read_folder(tmp_path).seeds
    assert seed.code == 'def f(x): "Doc."; return x\n'


def test_same_files_same_records_in_the_same_order_wherever_they_lie(tmp_path: Path) -> None:
    for root, names in (("one", ["b.py", "a/z.py", "a.py"]), ("two", ["a.py", "a/z.py", "b.py"])):
        for name in names:
            write(tmp_path / root / "lib", name, FUNCTION)
    first, second = (read_folder(tmp_path / root / "lib") for root in ("one", "two"))
    assert [seed.path for seed in first.seeds] == ["a/z.py", "a.py", "b.py"]
    assert [seed_record(seed).id for seed in first.seeds] == [seed_record(seed).id for seed in second.seeds]
    collections = {collection_name(str(tmp_path / root / "lib"), first.seeds) for root in ("one", "two")}
    assert len(collections) == 1
    assert collections.pop().startswith("lib-")


def test_the_collections_name_follows_the_content(tmp_path: Path) -> None:
    write(tmp_path, "a.py", FUNCTION)
    before = collection_name(str(tmp_path), read_folder(tmp_path).seeds)
    write(tmp_path, "a.py", FUNCTION.replace("2 * x", "x + x"))
    assert collection_name(str(tmp_path), read_folder(tmp_path).seeds) != before


def test_the_collections_name_is_one_that_the_store_takes(tmp_path: Path) -> None:
    for name in ("x" * 250, "ä" * 120, "-" * 250):
        write(tmp_path, f"{name}/a.py", FUNCTION)
        found = collection_name(str(tmp_path / name), read(str(tmp_path / name), whole=True).seeds)
        assert len(found) <= 200
        assert re.fullmatch(r"(x+|seeds)-files-[0-9a-f]{8}", found)


async def test_whole_files_are_stored_in_requests_that_a_message_may_have(
    serving: Callable[..., Any], tmp_path: Path
) -> None:
    sizes: list[int] = []

    class Dataset(rpc.DatasetServiceServicer):
        async def Append(self, request: ds.AppendRequest, context: object) -> ds.AppendResponse:
            sizes.append(request.ByteSize())
            results = [ds.AppendResult(outcome=ds.APPEND_OUTCOME_INSERTED) for _ in request.records]
            return ds.AppendResponse(results=results)

    for number in range(20):
        write(tmp_path, f"{number}.py", f"x = {number}\n" + "# text\n" * 100_000)
    servicer = Dataset()  # type: ignore[abstract]  # what is not called is not there
    async with serving(dataset=lambda server: rpc.add_DatasetServiceServicer_to_server(servicer, server))() as there:
        stored = await store_seeds(there, read(str(tmp_path), whole=True), "files", Console(quiet=True))
    assert stored.inserted == 20
    assert len(sizes) == 4
    assert max(sizes) < 5 * 2**20


def test_the_same_function_twice_is_two_seeds(tmp_path: Path) -> None:
    write(tmp_path, "a.py", FUNCTION + FUNCTION)
    assert len({seed_record(seed).id for seed in read_folder(tmp_path).seeds}) == 2


def test_caches_environments_and_hidden_folders_are_not_entered(tmp_path: Path) -> None:
    for name in ("__pycache__/a.py", ".git/a.py", "node_modules/a.py", "env/lib/a.py", "site-packages/a.py", "ok/a.py"):
        write(tmp_path, name, FUNCTION)
    write(tmp_path, "env/pyvenv.cfg", "")
    assert [seed.path for seed in read_folder(tmp_path).seeds] == ["ok/a.py"]


def test_a_star_import_goes_with_the_names_that_come_from_nowhere_else(tmp_path: Path) -> None:
    code = FUNCTION.replace("2 * x", "floor(x) + own(x)")
    write(
        tmp_path, "a.py", "from math import *\nfrom .mine import *\n\ndef own(x):\n    return x\n\n" + code + FUNCTION
    )
    first, second = read_folder(tmp_path).seeds
    assert list(first.imports) == ["from math import *", "from .mine import *"]
    assert list(second.imports) == []


def test_a_long_elif_chain_is_no_obstacle(tmp_path: Path) -> None:
    chain = "x = 1\n" + "el".join(f"if x == {number}:\n    y = {number}\n" for number in range(1500))
    write(tmp_path, "a.py", chain + FUNCTION)
    collected = read_folder(tmp_path)
    assert [seed.name for seed in collected.seeds] == ["f"] or collected.problems


def test_the_licence_is_read_from_the_header(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "# SPDX-License-Identifier: MIT\n" + FUNCTION)
    assert read_folder(tmp_path).seeds[0].license == "MIT"


def test_one_file_is_a_folder_of_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.py", FUNCTION)
    assert [seed.path for seed in read(str(path)).seeds] == ["a.py"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param(None, "no such file or directory", id="missing"),
        pytest.param({}, "no Python file", id="empty"),
        pytest.param({"a.txt": FUNCTION}, "no Python file", id="other files"),
        pytest.param({"a.py": "x = 1\n"}, "no function with a docstring", id="no functions"),
        pytest.param({"a.py": "def (:\n"}, "1 of them unreadable", id="unreadable alone"),
    ],
)
def test_a_source_without_seeds_is_a_clear_failure(tmp_path: Path, files: dict[str, str] | None, message: str) -> None:
    folder = tmp_path / "folder"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            write(folder, name, content)
    with pytest.raises(Failure, match=message):
        read(str(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.py", FUNCTION)
    write(tmp_path, "b.py", FUNCTION).chmod(0)
    assert [problem.path for problem in read_folder(tmp_path).problems] == ["b.py"]


def test_the_standard_library_gives_self_consistent_seeds() -> None:
    collected = read("stdlib")
    assert len(collected.seeds) > 1000
    assert not [seed.path for seed in collected.seeds if seed.path.startswith(("test/", "idlelib/", "lib2to3/"))]
    assert "site-packages" not in {part for seed in collected.seeds for part in seed.path.split("/")}
    for seed in collected.seeds:
        ast.parse("\n".join([*seed.imports, seed.code]))
    assert len({seed_record(seed).id for seed in collected.seeds}) == len(collected.seeds)
    (insort,) = [seed for seed in collected.seeds if seed.name == "insort_right"]
    assert (insort.path, list(insort.imports), insort.license) == ("bisect.py", [], "PSF-2.0")
    assert collection_name("stdlib", collected.seeds).startswith("stdlib-3.")


def test_whole_files_are_seeds_without_a_name_whatever_they_contain(tmp_path: Path) -> None:
    write(tmp_path, "pkg/a.py", "# SPDX-License-Identifier: MIT\n" + FUNCTION)
    write(tmp_path, "old.py", "print 'of another version'\r\n")
    write(tmp_path, "latin.py", b"# coding: latin-1\ns = '\xe9'\n")
    collected = read(str(tmp_path), whole=True)
    assert [(seed.path, seed.line, seed.name, seed.license) for seed in collected.seeds] == [
        ("latin.py", 1, "", ""),
        ("old.py", 1, "", ""),
        ("pkg/a.py", 1, "", "MIT"),
    ]
    assert [seed.code for seed in collected.seeds][:2] == [
        "# coding: latin-1\ns = 'é'\n",
        "print 'of another version'\n",
    ]
    name = collection_name(str(tmp_path), collected.seeds)
    assert name.startswith(f"{tmp_path.name}-files-")
    assert collection_name("stdlib", collected.seeds).startswith("stdlib-files-3.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "contains no code"),
        (b" \n\t\n", "contains no code"),
        (b"x = '\xff'\n", "invalid or missing encoding declaration"),
        (b"# coding: no-such-codec\n", "unknown encoding: no-such-codec"),
        (b"x\0y", "contains a null byte"),
        (b"x = 1\n" * 200_000, "larger than 1,024 KiB"),
    ],
)
def test_a_file_that_is_no_seed_is_named_and_the_others_are_taken(tmp_path: Path, content: bytes, said: str) -> None:
    write(tmp_path, "odd.py", content)
    write(tmp_path, "good.py", "x = 1")
    collected = read(str(tmp_path), whole=True)
    assert [seed.path for seed in collected.seeds] == ["good.py"]
    [problem] = collected.problems
    assert str(problem).startswith(f"odd.py:1: {said}")
    (tmp_path / "good.py").unlink()
    with pytest.raises(Failure, match=r"no usable Python file in .*: odd\.py:1: "):
        read(str(tmp_path), whole=True)
