"""Contents of the runner's image."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from codealign.runner.profiles import DEFAULT

ROOT = Path(__file__).parents[2]
IMAGE_LOCK = ROOT / "sandbox-runner" / "requirements.lock"
_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def pins(path: Path) -> dict[str, str]:
    return dict(_PIN.findall(path.read_text()))


def test_its_packages_are_those_that_everything_is_tested_with() -> None:
    image, tested = pins(IMAGE_LOCK), pins(ROOT / "requirements.lock")
    assert image
    assert {name: tested.get(name) for name in image} == image, "`make lock` updates both"


def test_it_holds_what_the_distributions_in_it_need() -> None:
    needed: set[str] = set()
    for distribution in ("protos", "services/common", "sandbox-runner"):
        project = tomllib.loads((ROOT / distribution / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {})
        listed = [*project["dependencies"], *extras.get("pod", []), *extras.get("packages", [])]
        needed |= {re.split(r"[^a-z0-9-]", name)[0] for name in listed}
    assert {name for name in needed if not name.startswith("codealign-")} <= set(pins(IMAGE_LOCK))


def test_it_holds_the_packages_that_programs_may_import() -> None:
    assert DEFAULT.packages
    assert set(DEFAULT.packages) <= set(pins(IMAGE_LOCK))
