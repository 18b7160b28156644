"""Check whether a machine can run the services, without starting or changing anything."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codealign.cli.failures import Failure
from codealign.cli.home import LOW_DISK_BYTES, Home
from codealign.cli.stack import SERVICES, service_package
from codealign.cli.terminal import count, size
from codealign.common.machine import available_memory

Level = Literal["ok", "note", "problem"]

MIN_PYTHON = (3, 11)
MIN_RUNSC = 20240729
"""Minimum gVisor release. Older ones pretend to create namespaces but isolate nothing."""

_COMFORTABLE_DISK = 5 * 2**30
_COMFORTABLE_MEMORY = 4 * 2**30
_IMPORT_SECONDS = 60
PROGRAM_PACKAGES = {"numpy": ("numpy", "numpy.linalg", "numpy.random")}
"""Packages that the sandbox offers to programs if they are installed, and modules of them with machine code."""
_ENGINES = ("torch", "transformers")
_SANDBOX_PACKAGE = "codealign.runner"


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    what: str
    level: Level
    found: str
    remedy: str = ""


def examine(home: Path) -> list[Finding]:
    """Run all checks."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _program_packages,
        _gvisor,
        _compiler,
        lambda: _home(Home(home)),
        _memory,
        _ports,
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= MIN_PYTHON:
        return [Finding("python", "ok", found)]
    wanted = ".".join(map(str, MIN_PYTHON))
    return [Finding("python", "problem", found, f"use Python {wanted} or newer")]


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _packages() -> list[Finding]:
    findings = []
    for package in map(service_package, SERVICES):
        if _there(f"codealign.{package}.main"):
            findings.append(Finding("package", "ok", f"codealign.{package}"))
        else:
            remedy = f"install it into this Python: pip install codealign-{package}"
            findings.append(Finding("package", "problem", f"codealign.{package} is not installed", remedy))
    if not _there(_SANDBOX_PACKAGE):
        remedy = "install it into this Python: pip install codealign-sandbox-runner"
        findings.append(Finding("package", "problem", f"{_SANDBOX_PACKAGE} is not installed", remedy))
    missing = [name for name in _ENGINES if not _there(name)]
    if missing:
        remedy = "to serve models: pip install 'codealign-inference[transformers]' (`--engine replay` works without it)"
        findings.append(Finding("engine", "note", f"{', '.join(missing)} not installed", remedy))
    else:
        findings.append(Finding("engine", "ok", "torch and transformers"))
    return findings


def _program_packages() -> list[Finding]:
    """Try the packages that the sandbox copies from this Python for programs."""
    findings = []
    for package, modules in PROGRAM_PACKAGES.items():
        if not _there(package):
            remedy = f"if programs should import it, install it into this Python: pip install {package}"
            finding = Finding("programs", "note", f"{package} is not installed: programs cannot import it", remedy)
        elif fault := _import_fault(modules):
            remedy = "the sandbox cannot start: reinstall it, or uninstall it to run programs without it"
            finding = Finding("programs", "problem", f"{package} cannot be imported: {fault}", remedy)
        else:
            finding = Finding("programs", "ok", f"may import {package}")
        findings.append(finding)
    return findings


def _import_fault(modules: tuple[str, ...]) -> str:
    """Return why modules cannot be imported, or "". Another process tries: an import may crash, or start threads."""
    command = [sys.executable, "-c", f"import {', '.join(modules)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return next(reversed(done.stderr.split("\n\n")[-1].strip().splitlines()), f"exit code {done.returncode}")


_FASTER_RUNSC = 20260101
_FASTER = "releases of 2026 execute more programs with several runners: put one from https://gvisor.dev on PATH"


def _gvisor() -> list[Finding]:
    if platform.system() != "Linux":
        remedy = "run the services on Linux and connect to them from here by their addresses"
        return [Finding("gVisor", "problem", f"gVisor does not run on {platform.system()}", remedy)]
    runsc = shutil.which("runsc")
    apt = shutil.which("apt-get")
    fetched = "the sandbox service downloads its own release with apt-get at its first start"
    if runsc is None:
        if apt:
            return [Finding("gVisor", "ok", f"no runsc on PATH; {fetched}; {_FASTER}")]
        remedy = "install runsc: https://gvisor.dev/docs/user_guide/install/"
        return [Finding("gVisor", "problem", "no runsc on PATH, and no apt-get to download it", remedy)]
    version = _runsc_version(runsc)
    date = re.search(r"(20\d{6})", version)
    if date and int(date.group(1)) >= MIN_RUNSC:
        slower = "" if int(date.group(1)) >= _FASTER_RUNSC else f"; {_FASTER}"
        return [Finding("gVisor", "ok", f"{version} ({runsc}){slower}")]
    found = f"{version or 'unknown version'} ({runsc}) is too old to isolate programs"
    if apt:
        return [Finding("gVisor", "note", found, fetched)]
    return [Finding("gVisor", "problem", found, f"install release {MIN_RUNSC} or newer")]


def _compiler() -> list[Finding]:
    if not _there(_SANDBOX_PACKAGE):
        return []  # reported with the packages
    from codealign.runner import build

    try:
        return [Finding("compiler", "ok", " ".join(build.compiler()))]
    except RuntimeError as error:
        found, _, remedy = str(error).partition(". ")
        return [Finding("compiler", "problem", found, remedy)]


def _runsc_version(runsc: str) -> str:
    try:
        answer = subprocess.run([runsc, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip().splitlines()[0] if answer.stdout.strip() else ""


def _home(home: Home) -> list[Finding]:
    try:
        existing = next(path for path in (home.root.resolve(), *home.root.resolve().parents) if path.exists())
    except OSError as error:
        found = f"{home.root} cannot be used ({error.strerror or error})"
        return [Finding("home", "problem", found, "pass another directory with --home")]
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return [Finding("home", "problem", f"{home.root} is not writable", "pass another directory with --home")]
    free = shutil.disk_usage(existing).free
    text = f"{home.root.resolve()}, {size(free)} free"
    if free < LOW_DISK_BYTES:
        return [Finding("home", "problem", text, "free some space, or pass another directory with --home")]
    if free < _COMFORTABLE_DISK:
        return [Finding("home", "note", text, "enough for a small run; large runs and models need more")]
    return [Finding("home", "ok", text)]


def _memory() -> list[Finding]:
    available = available_memory()
    if available is None:
        return [Finding("memory", "note", "unknown")]
    text = f"{size(available)} available, {count(len(os.sched_getaffinity(0)), 'CPU')}"
    if available < _COMFORTABLE_MEMORY:
        return [Finding("memory", "note", text, "enough for the small embedded model; a 1.5B model needs 8 GiB")]
    return [Finding("memory", "ok", text)]


def _ports() -> list[Finding]:
    """Check that loopback ports are free. Services use ephemeral ports unless the environment sets fixed ones."""
    findings = []
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        findings.append(Finding("ports", "ok", "loopback has free ports"))
    except OSError as error:
        return [
            Finding(
                "ports", "problem", f"cannot listen on 127.0.0.1 ({error.strerror})", "allow connections on loopback"
            )
        ]
    for name, value in sorted(os.environ.items()):
        if not re.fullmatch(r"CODEALIGN_[A-Z]+_(HEALTH_|METRICS_)?PORT", name) or value == "0":
            continue
        try:
            _bind(int(value))
        except (OSError, ValueError, Failure) as error:
            findings.append(Finding("ports", "problem", f"{name}={value}: {error}", "unset it, or choose a free port"))
    return findings


def _bind(port: int) -> None:
    if not 0 < port < 2**16:
        raise Failure("not a port number")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
