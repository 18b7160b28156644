"""Contents of the services' images."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "charts" / "Dockerfile").read_text()
_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
IMAGES = {
    "dataset": ("services/dataset", ["s3"]),
    "coordinator": ("services/coordinator", ["hub"]),
    "sandbox": ("services/sandbox", []),
    "inference": ("services/inference", ["transformers", "openai"]),
    "console": ("services/console", []),
    "trainer": ("trainer", ["training", "cluster", "s3"]),
}
"""Images, each with its distribution and extras."""

ON_REQUEST = ("inference-vllm",)
"""Images that `make images` builds only if they are named."""


def pins(path: Path) -> set[tuple[str, str]]:
    return set(_PIN.findall(path.read_text()))


def needs(distribution: str, extras: list[str]) -> set[str]:
    project = tomllib.loads((ROOT / distribution / "pyproject.toml").read_text())["project"]
    listed = list(project["dependencies"])
    for extra in extras:
        listed += project["optional-dependencies"][extra]
    return {re.split(r"[^a-z0-9-]", name)[0] for name in listed}


@pytest.mark.parametrize("image", IMAGES)
def test_its_packages_are_those_that_everything_is_tested_with(image: str) -> None:
    tested = pins(ROOT / "requirements.lock")
    known = {name for name, _ in tested}
    own = {pin for pin in pins(ROOT / "charts" / "locks" / f"{image}.lock") if pin[0] in known}
    assert own
    assert own <= tested, "`make lock` renews both"


@pytest.mark.parametrize("image", IMAGES)
def test_it_holds_what_its_distributions_need(image: str) -> None:
    distribution, extras = IMAGES[image]
    needed = needs("protos", []) | needs("services/common", []) | needs(distribution, extras)
    held = {name for name, _ in pins(ROOT / "charts" / "locks" / f"{image}.lock")}
    assert {name for name in needed if not name.startswith("codealign-")} - held <= {"torch"}


def test_torch_is_in_inference_and_training_alone() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    made = {stage.split()[2]: stage for stage in stages if re.match(r"\S+ AS \S+", stage)}

    def whole(name: str) -> str:
        if name not in made:
            return ""
        copied = re.findall(r"--from=(\S+) /opt", made[name])
        return made[name] + whole(made[name].split()[0]) + "".join(whole(each) for each in copied)

    has = {image for image in IMAGES if "$TORCH" in whole(image)}
    assert has == {"inference", "trainer"}
    assert {image for image in (*IMAGES, "postgres", "inference-vllm") if "USER 65532:65532" in whole(image)} == {
        *(*IMAGES, "postgres", "inference-vllm")
    }


def test_every_image_that_values_name_is_one_that_make_builds() -> None:
    built = re.search(r"^IMAGES \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert built
    known = {f"codealign-{name}" for name in (*built.group(1).split(), *ON_REQUEST)}
    for path in (ROOT / "charts" / "codealign").glob("values*.yaml"):
        parts = yaml.safe_load(path.read_text()).values()
        named = {part["image"] for part in parts if isinstance(part, dict) and isinstance(part.get("image"), str)}
        assert named <= known
    for name in (*built.group(1).split(), *ON_REQUEST):
        assert name == "sandbox-runner" or re.search(rf"^FROM \S+ AS {name}$", DOCKERFILE, re.MULTILINE)
