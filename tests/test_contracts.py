"""The contracts: generated code is up to date, and the distributions are self-contained."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = [
    "protos",
    "services/common",
    "services/inference",
    "services/sandbox",
    "services/dataset",
    "services/coordinator",
    "sandbox-runner",
    "trainer",
    "trainer/nano",
    "cli",
    "services/console",
]


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    subprocess.run(
        [ROOT / "protos" / "generate.sh", tmp_path], check=True, env={"PYTHON": sys.executable, "PATH": _path()}
    )
    fresh = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*_pb2*.py*")}
    source = ROOT / "protos" / "src"
    committed = {file.relative_to(source): file.read_bytes() for file in source.rglob("*_pb2*.py*") if file.is_file()}
    committed = {name: data for name, data in committed.items() if "__pycache__" not in name.parts}
    assert fresh.keys() == committed.keys()
    stale = [str(name) for name, data in fresh.items() if data != committed[name]]
    assert not stale, f"run `make proto`: {stale}"


def _path() -> str:
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


def test_no_service_imports_another() -> None:
    packages = {"inference", "sandbox", "dataset", "coordinator", "trainer", "cli", "console"}
    shared = {"services/console": {"cli"}}  # its wording, charts and comparisons
    # The embedded model's recipe is not a service: it writes texts in the form of the coordinator's prompts.
    for distribution in set(DISTRIBUTIONS[2:]) - {"trainer/nano"}:
        for file in (ROOT / distribution / "src").rglob("*.py"):
            own = file.relative_to(ROOT / distribution / "src" / "codealign").parts[0]
            imported = {
                line.split()[1].split(".")[1]
                for line in file.read_text(encoding="utf-8").splitlines()
                if line.startswith(("from codealign.", "import codealign."))
            }
            assert not (imported & packages) - {own} - shared.get(distribution, set()), (
                f"{file} imports another service"
            )


def test_every_channel_is_made_where_keepalive_is_set() -> None:
    """A channel without keepalive waits for ever for a peer that vanished."""
    makers = [
        str(file.relative_to(ROOT))
        for distribution in DISTRIBUTIONS
        for file in (ROOT / distribution / "src").rglob("*.py")
        if re.search(r"\b(in)?secure_channel\(", file.read_text(encoding="utf-8"))
    ]
    assert makers == ["services/common/src/codealign/common/clients.py"]


@pytest.mark.model
def test_the_wheels_install_into_a_fresh_environment_and_import(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    for distribution in DISTRIBUTIONS:
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, ROOT / distribution],
            check=True,
            capture_output=True,
        )
    target = tmp_path / "site"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        target,
    ]
    subprocess.run([*pip, *wheels.glob("*.whl")], check=True, capture_output=True)
    modules = sorted(
        ".".join(file.relative_to(target).with_suffix("").parts).removesuffix(".__init__")
        for file in (target / "codealign").rglob("*.py")
        # Alembic runs its own; nano's data are seeds, some of them broken on purpose.
        if not {"migrations", "data"} & set(file.parts)
    )
    assert "codealign.cli.main" in modules
    code = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(target)!r})\n"
        f"for name in {modules!r}:\n"
        "    module = importlib.import_module(name)\n"
        f"    assert module.__file__.startswith({str(target)!r}), (name, module.__file__)\n"
    )
    # -S skips the editable installs; third-party packages are added by hand.
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    code = f"import sys; sys.path.append({packages!r})\n" + code
    ended = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_torch_is_needed_by_inference_and_training_alone() -> None:
    for distribution in DISTRIBUTIONS:
        text = (ROOT / distribution / "pyproject.toml").read_text(encoding="utf-8")
        assert ("torch" in text) == distribution.endswith(("inference", "trainer")), distribution
