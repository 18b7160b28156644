"""The profile `numpy`: what it adds, in ordinary executions."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.sandbox.settings import SandboxSettings

from .conftest import Gateway, identifies_verdicts, name_of, request, running

pytestmark = pytest.mark.gvisor
pytest.importorskip("numpy", reason="numpy is not installed beside the gateway")


@pytest.fixture(scope="module")
def scientific(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("numpy"), profile="numpy", slots="1") as gateway:
        gateway.wait_ready()
        yield gateway


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
def test_programs_may_use_numpy(scientific: Gateway, code: str, tests: str, verdict: str) -> None:
    result = scientific.run(code, tests)
    assert name_of(result) == verdict, result


def test_the_runner_offers_both_profiles(scientific: Gateway) -> None:
    (runner,) = scientific.stub.GetRunner(pb.GetRunnerRequest(), timeout=10).runners
    assert list(runner.profiles) == ["numpy", "default"]
    assert identifies_verdicts(runner), runner


_DYNAMIC = "import importlib\nnp = importlib.import_module('numpy')\n"


@pytest.mark.parametrize("code", ["import numpy", _DYNAMIC, "import sys\nsys.modules['numpy'].ones(1)"])
def test_in_profile_default_the_same_runner_has_no_numpy(scientific: Gateway, code: str) -> None:
    for profile, verdict in (("numpy", "PASSED"), ("default", "RAISED"), ("", "PASSED")):
        asked = request(code, "assert True")
        asked.profile = profile
        assert name_of(scientific.stub.Execute(asked, timeout=60).result) == verdict, profile


def test_a_programs_own_module_may_use_numpy(scientific: Gateway) -> None:
    files = {"helper.py": b"import numpy as np\ndef total(n): return int(np.arange(n).sum())\n"}
    result = scientific.run("from helper import total", "assert total(4) == 6", files=files)
    assert name_of(result) == "PASSED", result


@pytest.mark.parametrize("code", ["import sys", "import sys, json, unittest"])
def test_a_program_that_does_not_name_numpy_is_served_without_it(scientific: Gateway, code: str) -> None:
    # The name is built here because the program would otherwise mention it.
    look = "assert 'num' + 'py' not in sys.modules"
    assert name_of(scientific.run(code, look)) == "PASSED"
    assert name_of(scientific.run(f"{code}\n# numpy", look)) == "FAILED_ASSERTION"


def test_processes_are_limited_beside_the_third_fork_server_too(scientific: Gateway) -> None:
    forks = "import numpy, os\nfor _ in range(8):\n    if not os.fork():\n        os._exit(0)\n"
    assert name_of(scientific.run(forks, "assert True", processes=12)) == "PASSED"
    bomb = "import numpy, os\nwhile True: os.fork()"
    assert name_of(scientific.run(bomb, "assert True")) == "PROCESS_LIMIT"
    assert name_of(scientific.run("import numpy", "assert numpy.ones(2).sum() == 2")) == "PASSED"


def test_a_runner_without_packages_refuses_the_profile(gateway: Gateway) -> None:
    asked = request("import numpy", "assert True")
    asked.profile = "numpy"
    with pytest.raises(grpc.RpcError, match="unknown profile 'numpy'; the runners have 'default'"):
        gateway.stub.Execute(asked, timeout=60)


def test_without_it_there_is_no_numpy(gateway: Gateway) -> None:
    result = gateway.run("import numpy", "assert True")
    assert (name_of(result), result.exception) == ("RAISED", "ModuleNotFoundError")


def test_an_unknown_profile_is_told_at_the_start() -> None:
    with pytest.raises(ValueError, match="profile"):
        SandboxSettings(profile="scipy")
