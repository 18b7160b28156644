"""Sandboxes with one isolation mechanism removed: each is detected, named, and accepts no work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import build
from codealign.sandbox import rootfs
from codealign.sandbox.pool import objection
from codealign.sandbox.runners import runsc

from .conftest import CACHE

pytestmark = pytest.mark.gvisor

LEFT_OUT = {
    "ipc": (" | CLONE_NEWIPC", ""),
    "loopback": (" | CLONE_NEWNET", ""),
    "processes": ("CLONE_NEWPID | ", ""),
    "privileges": ('check(prctl(PR_SET_SECCOMP, 2, &confinement.filter, 0, 0), "seccomp");', ""),
    "disk": ("size=%lld", "size=99%lld"),
    # Its mounts would be the fork server's: the kernel refuses, and a probe that cannot run proves nothing.
    "probe": ('map_user();\n    check(unshare(CLONE_NEWNS), "unshare");', "map_user();"),
}
"""For each isolation check that must fail: what is changed in the native part, and to what."""


def _variant(folder: Path, changed: str, into: str) -> rootfs.Root:
    """Return the root file system with a modified native part."""
    root = folder / "root"
    shutil.copytree(rootfs.prepare(CACHE).path, root, symlinks=True)
    source = build.SOURCE.read_text()
    assert changed in source, "the native part has changed: so must this test"
    (folder / "native.c").write_text(source.replace(changed, into))
    site = root / str(rootfs.SITE).lstrip("/") / "codealign" / "runner"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SOURCE", folder / "native.c")
        build.build(site)
    return rootfs.Root(root, "sha256:changed")


@pytest.mark.parametrize("check", LEFT_OUT)
async def test_a_check_that_must_fail_is_named(tmp_path: Path, check: str) -> None:
    sound = runsc.prepare(CACHE, 2, 60.0)
    backend = runsc.RunscBackend(sound.runsc, _variant(tmp_path, *LEFT_OUT[check]), tmp_path, 2, 60.0)
    runner = await backend.start("ptrace")
    try:
        description = runner.description
        assert description.state == pb.RUNNER_STATE_REFUSED
        assert check in {each.name for each in description.isolation_checks if not each.passed}, description
        assert f"{check}: " in objection(description, pb.ISOLATION_GVISOR)
    finally:
        await runner.close()
