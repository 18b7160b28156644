"""`codealign sandbox exec` and a ten-line client: eight programs with the right verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

TESTS = "assert f(2) == 4\nassert f(0) == 0\n"
GOOD = "def f(x):\n    return 2 * x\n"
PROGRAMS = {
    "passing": (GOOD, "PASSED"),
    "failing": (GOOD.replace("2 *", "3 *"), "FAILED_ASSERTION"),
    "looping": (GOOD + "while True: pass\n", "TIMED_OUT"),
    "forking": (GOOD + "import os\nwhile True: os.fork()\n", "PROCESS_LIMIT"),
    "memory-eating": (GOOD + "x = bytearray(1 << 40)\n", "OUT_OF_MEMORY"),
    "flooding": (GOOD + "while True: print('x' * 100000)\n", "OUTPUT_LIMIT"),
    "early-exiting": (GOOD + "import sys\nsys.exit(0)\n", "EXITED_EARLY"),
    "network-calling": (GOOD + "import socket\nsocket.create_connection(('1.1.1.1', 80), 2)\n", "RAISED"),
}
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, services_up: Callable[[Path], AbstractContextManager[None]]
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sandbox")
    with services_up(folder):
        yield folder


@pytest.mark.gvisor
@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_gets_its_verdict(home: Path, tmp_path: Path, name: str) -> None:
    source, verdict = PROGRAMS[name]
    code, tests = tmp_path / "code.py", tmp_path / "tests.py"
    code.write_text(source)
    tests.write_text(TESTS)
    arguments = ["sandbox", "exec", str(code), "--tests", str(tests), "--timeout", "5", "--home", str(home), "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "codealign.cli.main", *arguments], capture_output=True, text=True, timeout=60
    )
    assert verdict in ended.stdout, ended.stdout + ended.stderr
    assert ended.returncode == (0 if verdict == "PASSED" else 1)


@pytest.mark.gvisor
def test_the_readmes_client_works_as_printed(home: Path) -> None:
    client = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    address = f"127.0.0.1:{json.loads((home / 'run' / 'sandbox.json').read_text())['port']}"
    ended = subprocess.run([sys.executable, "-c", client, address], capture_output=True, text=True, timeout=60)
    assert ended.stdout.startswith("VERDICT_EXITED_EARLY"), ended.stdout + ended.stderr
