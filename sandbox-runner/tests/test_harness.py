"""The harness in an ordinary process of its own: what it reports of a program, without gVisor around it."""

from __future__ import annotations

import marshal
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import codealign.runner
from codealign.runner import instrument
from codealign.runner.evidence import Report, parse_report
from codealign.runner.instrument import Kind

KEY = bytes(range(32))
SITE = Path(next(iter(codealign.runner.__path__))).parent.parent
RUN = f"""
import sys
sys.path.insert(0, {str(SITE)!r})
from codealign.runner import harness
import os
os._exit(harness.main(int(sys.argv[1]), int(sys.argv[2])))
"""


def run(code: str, tests: str, folder: Path) -> tuple[list[Report], int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    payload = folder / "payload"
    payload.write_bytes(marshal.dumps({"key": KEY, "code": code, "tests": tests, "files": {}}))
    descriptor = os.open(payload, os.O_RDONLY)
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-S", "-c", RUN, str(descriptor), str(theirs.fileno())],
            pass_fds=[descriptor, theirs.fileno()],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        os.close(descriptor)
        theirs.close()
        packets = []
        while packet := ours.recv(8192):
            packets.append(packet)
    reports = [parse_report(packet, KEY) for packet in packets]
    return [report for report in reports if report is not None], done.returncode


def kinds(code: str, tests: str, folder: Path) -> list[str]:
    return [report.kind.name for report in run(code, tests, folder)[0]]


def test_a_pass_is_begun_and_ended_with_its_count(tmp_path: Path) -> None:
    reports, code = run("x = 1", "for _ in range(3):\n    assert x", tmp_path)
    assert [report.kind for report in reports] == [Kind.BEGAN, Kind.ENDED]
    assert (reports[0].line, reports[1].executed, code) == (1, 3, 0)


def test_a_failure_is_reported_where_it_stands_and_once(tmp_path: Path) -> None:
    tests = "for n in range(3):\n    try:\n        assert n == 9\n    except AssertionError:\n        pass\n"
    reports, _ = run("", tests, tmp_path)
    assert [(report.kind, report.line) for report in reports if report.kind is Kind.FAILED] == [(Kind.FAILED, 3)]
    assert reports[-1].kind is Kind.ENDED
    assert reports[-1].executed == 3


@pytest.mark.parametrize(
    "tests",
    [
        "async def f():\n    assert True\nimport asyncio\nasyncio.run(f())",
        "class A:\n    def f(self):\n        with open('/dev/null'):\n            assert True\nA().f()",
        "match 1:\n    case 1:\n        assert True",
        "try:\n    raise ValueError\nexcept ValueError:\n    assert True",
        "try:\n    pass\nfinally:\n    assert True",
        "while True:\n    assert True\n    break",
        "if 0:\n    pass\nelif 1:\n    assert True, 'message'",
        "'''doc'''\nfrom __future__ import annotations\nassert True",
        "f = lambda: 1\nassert f()",
        "def check(candidate):\n    assert candidate() == 1\ncheck(lambda: 1)",
    ],
)
def test_assertions_are_found_in_every_block(tmp_path: Path, tests: str) -> None:
    reports, _ = run("", tests, tmp_path)
    assert [report.kind.name for report in reports] == ["BEGAN", "ENDED"]
    assert (reports[0].line, reports[1].executed) == (1, 1)


def test_an_assertion_behaves_as_before(tmp_path: Path) -> None:
    code = "caught = []\ndef message():\n    caught.append('evaluated')\n    return 'why'\n"
    tests = (
        "assert 1, message()\ntry:\n    assert 0, message()\nexcept AssertionError as e:\n    caught.append(str(e))\n"
    )
    tests += "if caught != ['evaluated', 'why']:\n    raise ValueError(caught)\n"
    assert kinds(code, tests, tmp_path) == ["BEGAN", "FAILED", "ENDED"]


def test_a_hostile_exception_is_described_without_running_it(tmp_path: Path) -> None:
    code = """
class Meta(type):
    __name__ = property(lambda self: 1 / 0)
class Bad(Exception, metaclass=Meta):
    def __str__(self): raise SystemExit(0)
    def __getattribute__(self, name): raise KeyError(name)
raise Bad
"""
    reports, status = run(code, "assert 1", tmp_path)
    assert reports[-1].kind is Kind.RAISED
    assert reports[-1].fields[1] in ("Bad", "Exception")
    assert status == 1


def test_nothing_of_the_witness_is_in_reach_of_gc_or_frames(tmp_path: Path) -> None:
    code = """
import gc, sys
key = bytes(range(32))
seen, waiting = set(), list(gc.get_objects())
frame = sys._getframe()
while frame:
    waiting += list(frame.f_locals.values()) + [frame.f_globals]
    frame = frame.f_back
found = False
while waiting:
    item = waiting.pop()
    if id(item) in seen: continue
    seen.add(id(item))
    if type(item) is bytes and item == key and item is not key: found = True
    if callable(item) and getattr(item, '__qualname__', '') == 'install.<locals>.hook': found = True
    waiting += gc.get_referents(item)
"""
    assert kinds(code, "assert not found", tmp_path) == ["BEGAN", "ENDED"]


def test_a_child_process_cannot_end_for_its_parent(tmp_path: Path) -> None:
    code = "import os\nif os.fork():\n    os.wait()\n    os._exit(0)\n"
    assert kinds(code, "assert True", tmp_path) == ["BEGAN"]


def test_a_failure_in_a_child_process_counts(tmp_path: Path) -> None:
    tests = "import os\nif os.fork() == 0:\n    try:\n        assert 0\n    finally:\n        os._exit(0)\n"
    tests += "os.wait()\nassert 1"
    assert kinds("", tests, tmp_path) == ["BEGAN", "FAILED", "ENDED"]


def test_an_empty_test_source_compiles_to_no_assertion() -> None:
    assert instrument.compile_tests("# nothing\n", "event")[1] == 0
