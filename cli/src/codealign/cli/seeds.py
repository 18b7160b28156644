"""Seed reader: extract documented functions, or whole files, from a directory of Python files.

Every module-level function with a docstring becomes a seed, with the imports it needs and its location. Seeds are not
filtered here: the coordinator decides which seeds are good enough, and records why. Whole files are seeds without a
name, for pipelines that draw snippets from them.

    collected = read_folder(Path("src"))
    records = [seed_record(seed) for seed in collected.seeds]

The result depends only on the files' content and relative paths: the same files give the same records in the same
order.
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
"""Used in place of a path: the standard library of the running interpreter."""

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
"""Directories that are never read, besides hidden ones and virtual environments."""
SKIPPED_IN_STDLIB = frozenset({"test", "tests", "idlelib", "lib2to3", "turtledemo"})
"""Directories of the standard library that are not library code."""

MAX_FILE_BYTES = 2**20
"""Maximum size of a whole file. Larger ones are generated code or data."""

_SPDX = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+\-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+\-]+)*)")
_HEADER_CHARACTERS = 4096  # licence headers are at the top


@dataclass(frozen=True)
class Problem:
    """A file, or a function in a file, that could not be read or is no seed."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


_MOST_STEM = 180
"""Characters of a directory's name that its collection takes over. The store takes 200 of a collection's name."""


@dataclass
class Collected:
    """Result of reading a directory."""

    seeds: list[pb.Seed] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    """Python files that were read, including unreadable ones."""
    undocumented: int = 0
    """Module-level functions without a docstring."""


def stdlib_folder() -> Path:
    """Return the standard library's directory."""
    return Path(sysconfig.get_path("stdlib"))


def read(source: str, on_file: Callable[[int, int], None] | None = None, *, whole: bool = False) -> Collected:
    """Read the seeds of a directory, a file, or the standard library ("stdlib").

    Args:
        source: A path, or "stdlib". For a directory of that name, use "./stdlib".
        on_file: Called with the number of files read so far and the total.
        whole: Take whole files instead of their functions.

    Raises:
        Failure: The path does not exist, or has no Python file or no documented function.
    """
    if source == STDLIB:
        collected = read_folder(stdlib_folder(), SKIPPED_IN_STDLIB, on_file, license_id="PSF-2.0", whole=whole)
    else:
        collected = read_folder(Path(source), on_file=on_file, whole=whole)
    if whole and not collected.seeds:
        raise Failure(f"no usable Python file in {source}: {collected.problems[0]}")
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
    *,
    whole: bool = False,
) -> Collected:
    """Read every Python file in a directory tree.

    Args:
        root: The directory, or one file.
        skipped: Names of directories to skip, besides `SKIPPED`.
        on_file: Called with the number of files read so far and the total.
        license_id: SPDX identifier of files that state none.
        whole: Take whole files instead of their functions.

    Raises:
        Failure: The path does not exist, or has no Python file.
    """
    if not root.exists():
        raise Failure(f"no such file or directory: {root}")
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
            (read_whole if whole else read_source)(content, name, collected, license_id)
        collected.files += 1
        if on_file:
            on_file(number, len(files))
    return collected


def read_source(content: bytes, name: str, into: Collected, license_id: str = "") -> None:
    """Read the functions of one file.

    Args:
        content: The file's content.
        name: The file's path, stored in the seeds.
        into: Receives the seeds and problems.
        license_id: SPDX identifier if the file states none.
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
    license_id = _license(text) or license_id
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
                license=license_id,
            )
        )


def read_whole(content: bytes, name: str, into: Collected, license_id: str = "") -> None:
    """Take one file as a seed; see `read_source`. It need not be valid Python."""
    try:
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES // 2**10:,} KiB")
        text = decode(content)
        if not text.strip():
            raise ValueError("contains no code")
        if "\0" in text:
            raise ValueError("contains a null byte")
    except (SyntaxError, ValueError, LookupError) as error:
        into.problems.append(Problem(name, 1, str(error)))
        return
    into.seeds.append(pb.Seed(code=text, path=name, line=1, license=_license(text) or license_id))


def _license(text: str) -> str:
    """Return the licence that a file states (SPDX), or "" if it states none."""
    stated = _SPDX.search(text, 0, _HEADER_CHARACTERS)
    return stated.group(1) if stated else ""


def decode(content: bytes) -> str:
    r"""Decode a Python file by its declared encoding, without a byte-order mark and with lines ended by \n.

    Raises:
        SyntaxError: The declared encoding is unknown.
        ValueError: The bytes are invalid in that encoding.
        LookupError: The declared encoding is not a text encoding.
    """
    encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
    text = content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    text.encode()  # some encodings yield lone surrogates, which nothing else in the system accepts
    return text


def function_source(function: FunctionNode, lines: list[str]) -> str:
    r"""Return a function's source with decorators, dedented by the indentation of its `def`.

    Lines inside string literals keep their indentation, which belongs to the value; docstrings are dedented.

    Args:
        function: Its node.
        lines: The file's lines, split at \n.
    """
    start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    own = lines[start - 1 : function.end_lineno]
    indent = own[0][: len(own[0]) - len(own[0].lstrip())]
    last = own[-1].encode()[: function.end_col_offset].decode()  # code after a `;` is not part of the function
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
    """Escape the lone surrogates that string escapes and undecodable file names produce."""
    return text.encode("utf-8", "backslashreplace").decode()


def seed_record(seed: pb.Seed) -> pb.Record:
    """Return the seed as a record with its id."""
    return complete(
        pb.Record(kind=pb.KIND_SEED, seed=seed, provenance=pb.Provenance(producer=f"codealign-cli {__version__}"))
    )


def collection_name(source: str, seeds: list[pb.Seed]) -> str:
    """Return a collection name that changes whenever the seeds change.

    It is `stdlib-3.11.2` for the standard library, otherwise the directory's name and 8 digits of a hash of the seeds.
    For whole files, `-files` follows the name.
    """
    kind = "" if all(seed.name for seed in seeds) else "-files"
    if source == STDLIB:
        return f"stdlib{kind}-{platform.python_version()}"
    path = Path(source).resolve()
    digest = hashlib.sha256()
    for seed in seeds:
        digest.update(seed_record(seed).content_hash.encode())
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.is_file() else path.name)
    stem = stem[:_MOST_STEM].strip("-") or "seeds"
    return f"{stem}{kind}-{digest.hexdigest()[:8]}"
