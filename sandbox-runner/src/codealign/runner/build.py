"""Build the native parts: `python -m codealign.runner.build FOLDER [--practice]` writes them into FOLDER."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from codealign.runner.slot import HEAP

SOURCE = Path(__file__).with_name("native.c")
HEAP_SOURCE = Path(__file__).with_name("heap.c")
NAME = "_native.so"
_FLAGS = ("-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers")


def compiler() -> list[str]:
    """Return the command of a C compiler: the machine's, or the one in the package `ziglang`.

    Raises:
        RuntimeError: No compiler was found; the message says how to get one.
    """
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path:
            return [path]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise RuntimeError(
        "no C compiler found; the sandbox's fork server has a native part. Install one (apt-get install gcc), or run: "
        f"{sys.executable} -m pip install ziglang"
    )


def build(folder: Path, *, practice: bool = False) -> None:
    """Compile the extension, and the library that arranges its memory.

    Args:
        folder: Where to write them.
        practice: Build the variants for `practice`, which isolate nothing. Never start a slot with them.

    Raises:
        RuntimeError: Compilation failed; the message includes the compiler's output.
    """
    for source, name in ((SOURCE, NAME), (HEAP_SOURCE, HEAP)):
        target = folder / name
        target.unlink(missing_ok=True)
        command = [*compiler(), *_FLAGS, *(["-DPRACTICE"] if practice else []), "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{source.name} does not compile: {done.stderr.strip()[-1000:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--practice", action="store_true", help="build the variants for practice")
    given = parser.parse_args()
    build(given.folder, practice=given.practice)
