"""Publish a release: images by digest with an SBOM and a signature, and the chart that names these digests.

    make release REGISTRY=ghcr.io/someone/

pushes the images that `make images` built, then the chart to `oci://<registry>charts/codealign`. What identifies the
release is left in dist/release: a JSON file and an SBOM for each image, the chart, and SHA256SUMS.

SBOMs are written by syft and signatures by cosign, which must be on PATH, or be declined by `--without-sbom` and
`--unsigned`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "codealign"
OUTPUT = ROOT / "dist" / "release"
VERSION = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
PROGRAMS = {"docker": "push the images", "helm": "package the chart", "syft": "write SBOMs", "cosign": "sign"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


class ReleaseError(Exception):
    """The release cannot be published; the message says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `python -m charts.release`."""
    parser = argparse.ArgumentParser(prog="charts.release", description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["images", "chart", "all"], help="what to publish; the chart needs its images")
    parser.add_argument("--registry", required=True, help="prefix of the names, ending with a slash")
    parser.add_argument(
        "--image", action="append", default=[], help="an image's short name, such as dataset; repeatable"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for what identifies the release")
    parser.add_argument("--without-sbom", action="store_true", help="do without syft")
    parser.add_argument("--unsigned", action="store_true", help="do without cosign")
    given = parser.parse_args(arguments)
    try:
        _check(given)
        given.output.mkdir(parents=True, exist_ok=True)
        if given.part != "chart":
            for name in given.image:
                publish_image(f"codealign-{name}", given)
        if given.part != "images":
            publish_chart(given)
        write_sums(given.output)
    except ReleaseError as error:
        sys.exit(f"release: {error}")


def _check(given: argparse.Namespace) -> None:
    if not re.fullmatch(r"[\w.\-:\[\]]+(/[\w.\-]+)*/", given.registry):
        raise ReleaseError(f"--registry is {given.registry!r}: give a host, a path and a last slash, as ghcr.io/me/")
    if given.part != "chart" and not given.image:
        raise ReleaseError("no --image is given: name at least one, such as --image dataset")
    declined = {*(["syft"] if given.without_sbom else []), *(["cosign"] if given.unsigned else [])}
    needed = {"images": ("docker", "syft", "cosign"), "chart": ("helm", "cosign"), "all": tuple(PROGRAMS)}[given.part]
    for program in needed:
        if program not in declined and shutil.which(program) is None:
            option = {"syft": ", or use --without-sbom", "cosign": ", or use --unsigned"}.get(program, "")
            raise ReleaseError(f"{program} is not on PATH: install it to {PROGRAMS[program]}{option}")


def publish_image(name: str, given: argparse.Namespace) -> None:
    """Push an image and write its digest and SBOM."""
    repository = f"{given.registry}{name}"
    _run("docker", "push", "--quiet", f"{repository}:{VERSION}")
    digests = json.loads(_run("docker", "inspect", "--format", "{{json .RepoDigests}}", f"{repository}:{VERSION}"))
    found = [digest for digest in digests if digest.startswith(f"{repository}@")]
    if not found:
        raise ReleaseError(f"{repository}:{VERSION} has no digest after the push: is the registry the one of its name?")
    digest = found[-1].partition("@")[2]
    reference = f"{repository}@{digest}"
    if not given.without_sbom:
        sbom = given.output / f"{name}.spdx.json"
        source = f"docker:{repository}:{VERSION}"
        _run("syft", "scan", source, "--output", f"spdx-json={sbom}", "--quiet")
    if not given.unsigned:
        _run("cosign", "sign", "--yes", reference)
        if not given.without_sbom:
            _run("cosign", "attest", "--yes", "--type", "spdxjson", "--predicate", str(sbom), reference)
    described = {"name": name, "version": VERSION, "reference": reference, "digest": digest}
    (given.output / f"{name}.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    print(reference)


def publish_chart(given: argparse.Namespace) -> None:
    """Package the chart with the digests of the images in the output folder, and push it."""
    digests = {}
    for path in sorted(given.output.glob("codealign-*.json")):
        described = json.loads(path.read_text(encoding="utf-8"))
        if "digest" in described and described["version"] == VERSION:
            digests[described["name"]] = described["digest"]
    if not digests:
        raise ReleaseError(f"{given.output} has no image of version {VERSION}: publish the images first")
    archive = package(given.registry, digests, given.output)
    repository = f"{given.registry}charts"
    plain = ["--plain-http"] if given.registry.startswith(_LOCAL) else []
    pushed = _run("helm", "push", str(archive), f"oci://{repository}", *plain)
    found = _DIGEST.search(pushed)
    if found is None:
        raise ReleaseError(f"helm push printed no digest: {pushed.strip()}")
    if not given.unsigned:
        _run("cosign", "sign", "--yes", f"{repository}/codealign@{found.group()}")
    print(f"oci://{repository}/codealign --version {VERSION}  ({found.group()})")


def package(registry: str, digests: Mapping[str, str], folder: Path) -> Path:
    """Package the chart so that it installs these images without further values.

    Args:
        registry: Prefix of the images' names.
        digests: Digest of each image by name.
        folder: Folder for the archive.

    Returns:
        The archive's path.
    """
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "codealign"
        shutil.copytree(CHART, copy)
        values = (copy / "values.yaml").read_text(encoding="utf-8")
        for old, new in (
            ('  registry: ""\n', f"  registry: {json.dumps(registry)}\n"),
            ("  digests: {}\n", f"  digests: {json.dumps(dict(digests))}\n"),
        ):
            if values.count(old) != 1:
                raise ReleaseError(f"values.yaml does not have the line {old.strip()!r} once")
            values = values.replace(old, new)
        (copy / "values.yaml").write_text(values, encoding="utf-8")
        flags = (f"--version={VERSION}", f"--app-version={VERSION}", f"--destination={folder}")
        _run("helm", "package", str(copy), *flags)
    return folder / f"codealign-{VERSION}.tgz"


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS of a release's files, as `sha256sum --check` reads it."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise ReleaseError(f"`{' '.join(command)}` failed: {said[-1000:]}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
