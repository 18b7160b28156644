"""The runner's root file system: only what Python needs and the runner itself.

The root is a directory in the cache, named by the digest of its content. The host's /usr and the interpreter are
bind-mounted into it read-only when a runner starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import platform
import py_compile
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from codealign.runner import build, practice
from codealign.runner.profiles import DEFAULT

SITE = Path("/opt/codealign/site")
PYTHON = Path("/opt/codealign/python")
_PACKAGES = ("codealign.runner", "codealign.api.runner", "codealign.api.sandbox", "google.protobuf", "google._upb")
_SUFFIXES = (".py", ".so")
_MOUNT_POINTS = ("box", "dev", "etc", "opt/codealign", "proc", "sys", "tmp", "usr", "run", "var/tmp")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/:/bin/false\nsandbox:x:65600:65600:sandbox:/box/work:/bin/sh\n",
    "etc/group": "root:x:0:\nsandbox:x:65600:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs in the sandbox: this process's base interpreter, without its virtual environment."""

    prefix: Path
    """Installation prefix on this machine."""
    executable: Path
    """Path of the executable inside the sandbox."""
    version: str
    shared_library: bool

    @property
    def box_prefix(self) -> Path:
        """Prefix inside the sandbox: the same if it is /usr, otherwise one that does not collide with host paths."""
        return self.prefix if self.prefix == Path("/usr") else PYTHON


def interpreter() -> Interpreter:
    """Return the base interpreter of this process, outside any virtual environment."""
    prefix = Path(sys.base_prefix).resolve()
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    place = prefix if prefix == Path("/usr") else PYTHON
    return Interpreter(
        prefix=prefix,
        executable=place / base.relative_to(prefix),
        version=platform.python_version(),
        shared_library=bool(sysconfig.get_config_var("Py_ENABLE_SHARED")),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Root:
    """A root file system in the cache."""

    path: Path
    digest: str
    """Digest of everything that can change a verdict: the runner, its libraries, the interpreter and its library."""


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the package {name} is not installed in this environment")
    return Path(next(iter(spec.submodule_search_locations)))


def _extra(package: str) -> Iterator[tuple[Path, Path]]:
    """Yield the files of a package that programs may import, including the libraries bundled with its wheel.

    Yields nothing if the package is not installed. Its metadata tells the runner the version.
    """
    if importlib.util.find_spec(package) is None:
        return
    folder = _package_folder(package)
    for path in sorted(folder.parent.glob(f"{package}-*.dist-info/METADATA")):
        yield path, path.relative_to(folder.parent)
    for part in (folder, folder.with_name(f"{package}.libs")):
        for path in sorted(part.rglob("*")):
            inner = path.relative_to(part.parent)
            if path.is_file() and path.suffix != ".pyc" and "tests" not in inner.parts:
                yield path, inner


def _sources() -> Iterator[tuple[Path, Path]]:
    """Yield every file of the runner's site directory with its path there."""
    for package in DEFAULT.packages:
        yield from _extra(package)
    for name in _PACKAGES:
        folder = _package_folder(name)
        for path in sorted(folder.rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                yield path, Path(*name.split(".")) / path.relative_to(folder)


def _standard_library() -> Iterator[str]:
    """Yield names and sizes. Reading 70 MB at each start would cost more than it could detect."""
    folder = Path(sysconfig.get_path("stdlib"))
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SUFFIXES and "site-packages" not in path.parts and "test" not in path.parts:
            yield f"{path.relative_to(folder)} {path.stat().st_size}"


def _digest(sources: list[tuple[Path, Path]], python: Interpreter) -> str:
    digest = hashlib.sha256(f"{sys.version}\n{platform.libc_ver()}\n{python.executable}\n".encode())
    for path, target in sources:
        digest.update(f"{target}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    for source in (build.SOURCE, build.HEAP_SOURCE, *sorted(practice.PROGRAMS.iterdir())):
        digest.update(source.read_bytes())
    for line in _standard_library():
        digest.update(f"{line}\n".encode())
    for name, text in sorted(_FILES.items()):
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()


def _links() -> dict[str, str]:
    """Return the links into /usr on this machine, which the sandbox has too; see `bundle` for real directories."""
    return {
        name: str(Path(f"/{name}").readlink())
        for name in ("bin", "sbin", "lib", "lib64")
        if Path(f"/{name}").is_symlink()
    }


def _fill(folder: Path, sources: list[tuple[Path, Path]], python: Interpreter) -> None:
    for name in _MOUNT_POINTS:
        (folder / name).mkdir(parents=True)
    for name, text in _FILES.items():
        (folder / name).write_text(text)
    for name, link in _links().items():
        (folder / name).symlink_to(link)
    for name in ("lib", "lib64"):
        if Path(f"/{name}").is_dir() and not Path(f"/{name}").is_symlink():
            (folder / name).mkdir()
    if python.box_prefix == PYTHON:
        (folder / str(PYTHON).lstrip("/")).mkdir()
    site = folder / str(SITE).lstrip("/")
    for path, target in sources:
        place = site / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        if place.suffix == ".py":
            py_compile.compile(
                str(place),
                dfile=str(SITE / target),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
    build.build(site / "codealign" / "runner")
    shutil.copytree(practice.PROGRAMS, site / "codealign" / "runner" / practice.PROGRAMS.name)
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)


def prepare(cache: Path) -> Root:
    """Find the root in the cache, or create it there.

    Args:
        cache: The project's cache directory.

    Raises:
        RuntimeError: A required package is not installed, or the native part cannot be compiled.
    """
    python = interpreter()
    sources = list(_sources())
    digest = _digest(sources, python)
    path = cache / "rootfs" / digest[:16]
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent))
        try:
            _fill(fresh, sources, python)
            fresh.rename(path)
        except OSError:
            # Another process may have created it first: a rename onto a non-empty directory fails.
            if not path.is_dir():
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return Root(path, f"sha256:{digest}")
