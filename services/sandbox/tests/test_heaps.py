"""The memory of fork servers: profiles are made once, or not at all, and change no verdict."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from codealign.runner import build, practice
from codealign.runner.profiles import DEFAULT
from codealign.runner.slot import HEAP, HEAPS
from codealign.sandbox import heaps, rootfs

from .conftest import CACHE, Gateway, name_of

ENDS = {"failing": "RAISED", "wrong": "FAILED_ASSERTION", "uncompiled": "SYNTAX_ERROR", "plain": "COMPLETED"}
"""Verdicts of the typical programs that do not pass."""


def runner_of(root: rootfs.Root) -> Path:
    return root.path / "opt/codealign/site/codealign/runner"


@pytest.mark.parametrize(("name", "program"), list(practice.typical_programs()))
@pytest.mark.gvisor
def test_a_typical_program_ends_as_it_should(gateway: Gateway, name: str, program: practice.Program) -> None:
    assert name_of(gateway.run(*program)) == ENDS.get(name, "PASSED")


def test_the_typical_programs_cover_every_fork_server() -> None:
    programs = [program for _, program in practice.typical_programs()]
    assert {DEFAULT.server_of(*program) for program in programs} == set(DEFAULT.servers)
    light, full, packaged = (len(practice.programs_of(name, DEFAULT)) for name in DEFAULT.servers)
    assert 0 < light < full < packaged == len(programs)


@pytest.mark.gvisor
def test_a_used_root_has_profiles_and_nothing_of_the_practice(gateway: Gateway) -> None:
    root = rootfs.prepare(CACHE)
    assert name_of(gateway.run("", "assert True")) == "PASSED"
    assert heaps.are_there(root)
    profiles = {path.name: path.stat().st_size // 8 for path in (runner_of(root) / HEAPS).iterdir()}
    assert profiles.keys() == DEFAULT.with_packages(["numpy"]).servers.keys()
    assert all(500 < blocks < 20_000 for blocks in profiles.values())
    for library in ("_native.so", HEAP):
        assert b"heap_watch" not in (runner_of(root) / library).read_bytes(), "the variant that isolates nothing"


@pytest.mark.gvisor
def test_a_program_sees_nothing_of_it(gateway: Gateway) -> None:
    code = "import os\nseen = dict(os.environ)\nraw = open('/proc/self/environ', 'rb').read()\n"
    tests = "assert not {'LD_PRELOAD', 'LD_BIND_NOW', 'CODEALIGN_HEAP'} & seen.keys()\nassert b'CODEALIGN' not in raw\n"
    result = gateway.run(code, tests)
    assert name_of(result) == "PASSED", result.detail


@pytest.mark.gvisor
def test_large_blocks_and_many_are_allocated_resized_and_freed(gateway: Gateway) -> None:
    code = """
import sys, threading

def churn(rounds):
    kept = {}
    for number in range(rounds):
        size = (number * 7919) % 300_000
        kept[number % 97] = bytearray(size)
        kept[number % 89] = kept.get(number % 97, b"") * 2
        sys.path.append("x" * (number % 50))
        sys.path.pop()
    return len(kept)

def threads(count):
    found = []
    started = [threading.Thread(target=lambda: found.append(churn(300))) for _ in range(count)]
    for each in started: each.start()
    for each in started: each.join()
    return found
"""
    tests = "assert churn(3000) == 97\nassert threads(8) == [97] * 8\nassert len(bytes(64 << 20)) == 64 << 20\n"
    result = gateway.run(code, tests)
    assert name_of(result) == "PASSED", result.detail


@pytest.mark.gvisor
def test_without_profiles_the_heap_is_an_ordinary_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = rootfs.Root(tmp_path / "root", "sha256:none")
    (runner_of(root)).mkdir(parents=True)
    says = [sys.executable, "-c", "import sys; sys.exit('no namespaces')"]
    nonsense = [sys.executable, "-c", "print('light !')"]
    (tmp_path / "bundle").mkdir()
    heaps.prepare(root, tmp_path / "bundle", [says, nonsense, ["/nowhere"]])
    assert not heaps.are_there(root)
    told = "".join(capsys.readouterr())
    assert "no namespaces" in told
    assert "cannot be read" in told
    assert "/nowhere" in told


@pytest.mark.gvisor
def test_the_second_command_is_for_machines_that_refuse_the_first(tmp_path: Path) -> None:
    root = rootfs.Root(tmp_path / "root", "sha256:none")
    (runner_of(root)).mkdir(parents=True)
    build.build(runner_of(root))
    (tmp_path / "bundle").mkdir()
    text = base64.b64encode(bytes(16)).decode()
    refuses, works = ([sys.executable, "-c", code] for code in ("raise SystemExit(125)", f"print('light', '{text}')"))
    heaps.prepare(root, tmp_path / "bundle", [refuses, works])
    assert (runner_of(root) / HEAPS / "light").read_bytes() == bytes(16)
    assert (runner_of(root) / HEAP).exists()
    heaps.prepare(root, tmp_path / "bundle", [])
