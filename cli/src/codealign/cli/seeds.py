"""The seed reader: documented functions out of a folder of Python files.

Every function at module level that has a docstring becomes a seed, with the imports it needs and the place where it
was found. Nothing is judged here: which seeds are good enough is the coordinator's to say, and to record.

    collected = read_folder(Path("src"))
    records = [seed_record(seed) for seed in collected.seeds]

The result depends on the files' content and relative paths alone: same files, same records, in the same order.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
import sysconfig
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import __version__
from codealign.cli.failures import Failure
from codealign.cli.imports import FunctionNode, ModuleImports, module_level
from codealign.common.foreign_python import without_warnings
from codealign.common.records import complete

STDLIB = "stdlib"
"""In place of a path: the standard library of the running interpreter."""

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
"""Folders that are never entered; nor are hidden ones and virtual environments."""
SKIPPED_IN_STDLIB = frozenset({"test", "tests", "idlelib", "lib2to3", "turtledemo"})
"""What is no library code in the standard library."""

_SPDX = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+\-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+\-]+)*)")
_HEADER_CHARACTERS = 4096  # a licence header stands at the top


@dataclass(frozen=True)
class Problem:
    """A file, or a function of it, that could not be read."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass
class Collected:
    """What a folder gave."""

    seeds: list[pb.Seed] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    """Python files that were looked at, unreadable ones included."""
    undocumented: int = 0
    """Functions at module level without a docstring."""


def stdlib_folder() -> Path:
    """The standard library's folder."""
    return Path(sysconfig.get_path("stdlib"))


def read(source: str, on_file: Callable[[int, int], None] | None = None) -> Collected:
    """Read the seeds of a folder, a file, or of the standard library ("stdlib").

    Args:
        source: A path, or "stdlib". A folder of that name is meant by "./stdlib".
        on_file: Called with the number of files done and in all.

    Raises:
        Failure: There is no such path, no Python file in it, or no documented function in these.
    """
    if source == STDLIB:
        collected = read_folder(stdlib_folder(), SKIPPED_IN_STDLIB, on_file, license_id="PSF-2.0")
    else:
        collected = read_folder(Path(source), on_file=on_file)
    if not collected.seeds:
        unreadable = f", {len(collected.problems)} of them unreadable" if collected.problems else ""
        raise Failure(
            f"no function with a docstring in {source}: {collected.files} Python files{unreadable}, "
            f"{collected.undocumented} functions without one"
        )
    return collected


def read_folder(
    root: Path,
    skipped: frozenset[str] = frozenset(),
    on_file: Callable[[int, int], None] | None = None,
    license_id: str = "",
) -> Collected:
    """Read every Python file below a folder.

    Args:
        root: The folder, or one file.
        skipped: Names of folders that are left out, besides `SKIPPED`.
        on_file: Called with the number of files done and in all.
        license_id: The SPDX identifier for files that state none.

    Raises:
        Failure: There is no such path, or no Python file in it.
    """
    if not root.exists():
        raise Failure(f"no such folder: {root}")
    base = root if root.is_dir() else root.parent
    files = sorted(_python_files(root, SKIPPED | skipped), key=lambda path: path.relative_to(base).parts)
    if not files:
        raise Failure(f"no Python file (.py) in {root}")
    collected = Collected()
    for number, path in enumerate(files, 1):
        name = _printable(path.relative_to(base).as_posix())
        try:
            content = path.read_bytes()
        except OSError as error:
            collected.problems.append(Problem(name, 1, error.strerror or str(error)))
        else:
            read_source(content, name, collected, license_id)
        collected.files += 1
        if on_file:
            on_file(number, len(files))
    return collected


def read_source(content: bytes, name: str, into: Collected, license_id: str = "") -> None:
    """Read one file's functions.

    Args:
        content: The file.
        name: Its path, as the seeds will bear it.
        into: Gets the seeds and the problems.
        license_id: The SPDX identifier if the file states none.
    """
    try:
        text = decode(content)
        with without_warnings():
            module = ast.parse(text)
    except SyntaxError as error:
        into.problems.append(Problem(name, error.lineno or 1, error.msg))
        return
    except (ValueError, LookupError) as error:  # undecodable, a null byte, an unknown or no text encoding
        into.problems.append(Problem(name, 1, str(error)))
        return
    except (RecursionError, MemoryError):
        into.problems.append(Problem(name, 1, "nested too deeply for Python's parser"))
        return
    imports = ModuleImports.of(module)
    lines = text.split("\n")
    stated = _SPDX.search(text, 0, _HEADER_CHARACTERS)
    for statement, _ in module_level(module.body):
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(statement)
        if not docstring or not docstring.strip():
            into.undocumented += 1
            continue
        code = function_source(statement, lines)
        try:
            needed = imports.needed_by(statement, code)
        except (RecursionError, MemoryError):
            into.problems.append(Problem(name, statement.lineno, f"{statement.name}: nested too deeply"))
            continue
        except (SyntaxError, ValueError) as error:
            into.problems.append(Problem(name, statement.lineno, f"{statement.name}: {error}"))
            continue
        into.seeds.append(
            pb.Seed(
                code=code,
                name=statement.name,
                docstring=_printable(docstring),
                imports=needed,
                path=name,
                line=statement.lineno,
                license=stated.group(1) if stated else license_id,
            )
        )


def decode(content: bytes) -> str:
    r"""The text of a Python file: its declared encoding, no byte-order mark, lines ended by \n.

    Raises:
        SyntaxError: An unknown encoding is declared.
        ValueError: The bytes are not of that encoding.
        LookupError: The declared encoding is no text encoding.
    """
    encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
    text = content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    text.encode()  # some encodings can give lone surrogates, which no other part of the system takes
    return text


def function_source(function: FunctionNode, lines: list[str]) -> str:
    r"""A function's source, decorators included, without the indentation of its `def`.

    Lines inside a string keep theirs, since it belongs to the value; the docstring's do not.

    Args:
        function: Its node.
        lines: The file's lines, split at \n.
    """
    start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    own = lines[start - 1 : function.end_lineno]
    indent = own[0][: len(own[0]) - len(own[0].lstrip())]
    last = own[-1].encode()[: function.end_col_offset].decode()  # what follows a `;` is not the function's
    own = [*own[:-1], last]
    if indent:
        kept = _lines_inside_strings(function)
        own = [line if start + offset in kept else line.removeprefix(indent) for offset, line in enumerate(own)]
    return "\n".join(line.rstrip() if not line.strip() else line for line in own) + "\n"


def _lines_inside_strings(function: FunctionNode) -> set[int]:
    inside: set[int] = set()
    docstring = function.body[0]
    for node in ast.walk(function):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno:
            inside.update(range(node.lineno + 1, node.end_lineno + 1))
    return inside - set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))


def _python_files(root: Path, skipped: frozenset[str]) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for folder, subfolders, files in os.walk(root):
        here = Path(folder)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name not in skipped and not name.startswith(".") and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (here / name for name in files if name.endswith(".py"))


def _printable(text: str) -> str:
    """Without the lone surrogates that escapes and undecodable file names give."""
    return text.encode("utf-8", "backslashreplace").decode()


def seed_record(seed: pb.Seed) -> pb.Record:
    """The seed in its envelope, with its id."""
    return complete(
        pb.Record(kind=pb.KIND_SEED, seed=seed, provenance=pb.Provenance(producer=f"codealign-cli {__version__}"))
    )


def collection_name(source: str, seeds: list[pb.Seed]) -> str:
    """A collection's name that changes when its seeds do.

    `stdlib-3.11.2` for the standard library; else the folder's name and 8 digits of a hash over the seeds.
    """
    if source == STDLIB:
        return f"stdlib-{platform.python_version()}"
    path = Path(source).resolve()
    digest = hashlib.sha256()
    for seed in seeds:
        digest.update(seed_record(seed).content_hash.encode())
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.is_file() else path.name).strip("-") or "seeds"
    return f"{stem}-{digest.hexdigest()[:8]}"
