"""Packages that programs may import: what they add, and runners whose numpy is missing or broken."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.sandbox import rootfs, validate
from codealign.sandbox.runners import runsc
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost

from .conftest import CACHE, Gateway, name_of, request

pytestmark = pytest.mark.gvisor
pytest.importorskip("numpy", reason="numpy is not installed beside the gateway")

_START_SECONDS = 180.0


@pytest.mark.parametrize(
    ("code", "tests", "verdict"),
    [
        ("import numpy as np\n", "assert abs(np.linalg.det(np.array([[1, 2], [3, 4]])) + 2) < 1e-9", "PASSED"),
        ("import numpy as np\n", "assert np.random.default_rng(1).normal(size=3).shape == (3,)", "PASSED"),
        ("import numpy as np\n", "assert np.arange(3).sum() == 4", "FAILED_ASSERTION"),
        ("import numpy as np\n", "np.testing.assert_allclose(np.ones(2) + 1, [2, 2])", "PASSED"),
        (
            "import numpy as np\n",
            "from numpy.testing import assert_equal\ntry:\n    assert_equal(np.ones(2), [1, 2])\n"
            "except AssertionError:\n    pass\nassert True",
            "FAILED_ASSERTION",
        ),
        ("import numpy as np\nzeros = np.zeros(10**9)\n", "assert zeros.sum() == 0", "OUT_OF_MEMORY"),
        ("import math\n", "assert math.pi > 3", "PASSED"),
    ],
)
def test_programs_may_use_numpy(gateway: Gateway, code: str, tests: str, verdict: str) -> None:
    result = gateway.run(code, tests)
    assert name_of(result) == verdict, result


def test_the_runner_names_its_packages(gateway: Gateway) -> None:
    (runner,) = gateway.stub.GetRunner(pb.GetRunnerRequest(), timeout=10).runners
    assert dict(runner.packages) == {"numpy": importlib.metadata.version("numpy")}


def test_a_programs_own_module_may_use_numpy(gateway: Gateway) -> None:
    files = {"helper.py": b"import numpy as np\ndef total(n): return int(np.arange(n).sum())\n"}
    result = gateway.run("from helper import total", "assert total(4) == 6", files=files)
    assert name_of(result) == "PASSED", result


def test_each_run_draws_its_own_random_numbers(gateway: Gateway) -> None:
    drawn = {gateway.run("import numpy\nprint(numpy.random.random())").stdout.data for _ in range(3)}
    assert len(drawn) == 3


@pytest.mark.parametrize("code", ["import sys", "import sys, json, unittest"])
def test_a_program_that_does_not_name_numpy_sees_nothing_of_it(gateway: Gateway, code: str) -> None:
    # The name is built here because the program would otherwise mention it.
    look = "name = 'num' + 'py'\nassert name not in sys.modules\nassert not any('site' in path for path in sys.path)\n"
    dynamic = (
        f"{look}import importlib\ntry:\n    importlib.import_module(name)\nexcept ModuleNotFoundError:\n    assert True"
    )
    assert name_of(gateway.run(code, dynamic)) == "PASSED"
    assert name_of(gateway.run(f"{code}\n# numpy", look)) == "FAILED_ASSERTION"


def test_processes_are_limited_beside_the_third_fork_server_too(gateway: Gateway) -> None:
    forks = "import numpy, os\nfor _ in range(8):\n    if not os.fork():\n        os._exit(0)\n"
    assert name_of(gateway.run(forks, "assert True", processes=12)) == "PASSED"
    bomb = "import numpy, os\nwhile True: os.fork()"
    assert name_of(gateway.run(bomb, "assert True")) == "PROCESS_LIMIT"
    assert name_of(gateway.run("import numpy", "assert numpy.ones(2).sum() == 2")) == "PASSED"


def _without(folder: Path, part: str, into: str) -> runsc.RunscBackend:
    """Return a backend whose root file system has another text in a file of numpy, or no such directory."""
    sound = runsc.prepare(CACHE, 1, _START_SECONDS)
    root = folder / "root"
    shutil.copytree(sound.root.path, root, symlinks=True)
    path = root / str(rootfs.SITE).lstrip("/") / part
    if into:
        path.write_text(into)
        shutil.rmtree(path.parent / "__pycache__")  # compiled files are not compared with their source
    else:
        shutil.rmtree(path)
    return runsc.RunscBackend(sound.runsc, rootfs.Root(root, "sha256:changed"), folder, 1, _START_SECONDS)


async def _verdict(runner: AttachedRunner, code: str) -> pb.Result:
    return await runner.execute(validate.checked(request(code, "assert True")))


async def test_without_numpy_a_runner_works_and_says_so(tmp_path: Path) -> None:
    runner = await _without(tmp_path, "numpy", "").start("ptrace")
    try:
        assert runner.description.state == pb.RUNNER_STATE_READY
        assert not runner.description.packages
        assert name_of(await _verdict(runner, "import json")) == "PASSED"
        failed = await _verdict(runner, "import numpy")
        assert (name_of(failed), failed.exception) == ("RAISED", "ModuleNotFoundError")
    finally:
        await runner.close()


async def test_a_broken_numpy_is_named_with_its_error(tmp_path: Path) -> None:
    backend = _without(tmp_path, "numpy/linalg/__init__.py", "raise ImportError('no such\\nlibrary')\n")
    with pytest.raises(RunnerLost, match=r"ImportError: no such library \(numpy installed for programs: reinstall"):
        await backend.start("ptrace")
