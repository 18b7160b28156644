"""Build the native extension: `python -m codealign.runner.build FOLDER` writes FOLDER/_native.so."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("native.c")
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


def build(folder: Path) -> Path:
    """Compile the extension and return its path.

    Raises:
        RuntimeError: Compilation failed; the message includes the compiler's output.
    """
    target = folder / NAME
    done = subprocess.run(
        [*compiler(), *_FLAGS, "-o", str(target), str(SOURCE)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{SOURCE.name} does not compile: {done.stderr.strip()[-1000:]}")
    return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
