"""The profile `numpy`: what it brings, in an execution like any other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from codealign.sandbox.settings import SandboxSettings

from .conftest import Gateway, name_of, running

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


def test_without_it_there_is_no_numpy(gateway: Gateway) -> None:
    result = gateway.run("import numpy", "assert True")
    assert (name_of(result), result.exception) == ("RAISED", "ModuleNotFoundError")


def test_an_unknown_profile_is_told_at_the_start() -> None:
    with pytest.raises(ValueError, match="profile"):
        SandboxSettings(profile="scipy")
