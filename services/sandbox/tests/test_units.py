"""Units that need no gVisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.errors import ConfigurationError, InvalidArgument
from codealign.sandbox import debian, gvisor, validate
from codealign.sandbox.runners import folders
from codealign.sandbox.servicer import SandboxServicer

from .conftest import request

DEB822 = """\
Types: deb
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
OTHER = "Types: deb\nURIs: https://deb.nodesource.com/node_20.x\nSuites: nodistro\n\n"
SECURITY = "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n\n"


@pytest.mark.parametrize(
    ("text", "deb822", "mirror"),
    [
        (DEB822, True, "http://mirror.example/debian"),
        (OTHER + SECURITY + DEB822, True, "http://mirror.example/debian"),
        (OTHER + SECURITY, True, None),
        ("Enabled: no\n" + DEB822, True, None),
        ("Types: deb-src\nURIs: http://a/debian\nSuites: x\n", True, None),
        ("Types: deb\nURIs:\n http://a/debian/\nSuites: x\n", True, "http://a/debian"),
        ("deb http://a/debian bookworm main", False, "http://a/debian"),
        ("deb [arch=amd64 signed-by=/k.gpg] http://a/debian/ bookworm main contrib # why", False, "http://a/debian"),
        ("# deb http://a/debian bookworm main\ndeb http://a/debian-security bookworm-security main", False, None),
        ("deb-src http://a/debian bookworm main", False, None),
        ("deb https://packages.cloud.google.com/apt cloud-sdk main", False, None),
    ],
)
def test_the_mirror_is_read_from_apt_sources(text: str, deb822: bool, mirror: str | None) -> None:
    assert debian.mirror_of(text, deb822) == mirror


@pytest.mark.parametrize(
    ("output", "release"),
    [
        ("runsc version 0.0~20240729.0\nspec: 1.2.0\n", 20240729),
        ("runsc version release-20260908.0\nspec: 1.2.0\n", 20260908),
    ],
)
def test_a_release_is_read(output: str, release: int) -> None:
    assert gvisor.parse_release(output) == release


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("runsc version 0.0~20221219.0\nspec: 1.0.2\n", "isolates nothing"),
        ("runsc version VERSION_MISSING\n", "no release in the output"),
        ("", "no release in the output"),
    ],
)
def test_a_binary_that_does_not_isolate_is_refused_with_the_reason(output: str, reason: str) -> None:
    with pytest.raises(gvisor.Unusable, match=reason):
        gvisor.parse_release(output)


def test_without_a_usable_binary_the_user_is_told_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "runsc"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho runsc version 0.0~20221219.0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")

    def offline(package: str, suite: str, target: Path) -> None:
        raise debian.PackageUnavailable("this machine has no apt-get")

    monkeypatch.setattr(debian, "unpack", offline)
    with pytest.raises(ConfigurationError, match=r"20221219 is too old.*no apt-get.*Get one with: curl"):
        gvisor.locate(tmp_path / "cache")


def _fields(made: pb.ExecuteRequest) -> set[str]:
    with pytest.raises(InvalidArgument) as caught:
        validate.checked(made)
    return {field for field, _ in caught.value.violations}


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (request(""), "program.code"),
        (request("x" * (validate.CODE_LIMIT + 1)), "program.code"),
        (request("x", "y" * (validate.CODE_LIMIT + 1)), "program.tests"),
        (request("x", "assert x", expected="1"), "program.expected_output"),
        (request("x", wall_seconds=61), "limits.wall_seconds"),
        (request("x", wall_seconds=float("nan")), "limits.wall_seconds"),
        (request("x", cpu_seconds=-1), "limits.cpu_seconds"),
        (request("x", memory_bytes=1), "limits.memory_bytes"),
        (request("x", processes=10**6), "limits.processes"),
        (request("x", files={"/etc/passwd": b""}), "program.files[0].path"),
        (request("x", files={"a": b"", "b/../../c": b""}), "program.files[1].path"),
        (request("x", files={"a": bytes(65 << 20)}), "program.files"),
        (request("x", files={f"{n}/{'a/' * 500}b": b"" for n in range(20)}), "program.files"),
        (request("x", runs=11), "runs"),
        (request("x", request_id="x" * 300), "request_id"),
        (pb.ExecuteRequest(program=pb.Program(code="x"), profile="science"), "profile"),
        (pb.ExecuteRequest(program=pb.Program(code="x", language=7)), "program.language"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_field_is_named(made: pb.ExecuteRequest, field: str) -> None:
    assert _fields(made) == {field}


def test_a_wrong_size_is_told_in_mib_too() -> None:
    with pytest.raises(InvalidArgument, match=r"at least 16777216 \(16 MiB\), got 1048576 \(1 MiB\)"):
        validate.checked(request("x", memory_bytes=1 << 20))


def test_a_checked_request_has_every_default() -> None:
    checked = validate.checked(request("x", wall_seconds=3))
    assert (checked.limits.wall_seconds, checked.limits.cpu_seconds, checked.limits.processes) == (3, 10, 40)
    assert (checked.profile, checked.runs) == ("default", 1)


def test_the_limits_that_are_told_are_those_that_requests_get() -> None:
    (told,) = validate.resolved_limits(["default"])
    checked = validate.checked(request("x"))
    assert (told.profile, told.defaults) == (checked.profile, checked.limits)
    most = pb.ExecuteRequest(program=pb.Program(code="x"), limits=told.maxima)
    assert validate.checked(most).limits == told.maxima
    for field in told.maxima.DESCRIPTOR.fields:
        more = request("x")
        setattr(more.limits, field.name, getattr(told.maxima, field.name) + 1)
        with pytest.raises(InvalidArgument, match=f"limits.{field.name}: at most"):
            validate.checked(more)


async def test_every_backends_runner_is_told_with_the_limits_of_its_profiles() -> None:
    class Runners:
        descriptions = (
            pb.Runner(name="older", profiles=["past", "default"]),
            pb.Runner(name="newer", profiles=["default", "future"], profile_limits=[pb.ProfileLimits(profile="x")]),
            pb.Runner(name="refused"),
        )

    servicer = SandboxServicer(None, Runners(), 1)  # type: ignore[arg-type]
    told = (await servicer.GetRunner(pb.GetRunnerRequest(), None)).runners
    assert [[each.profile for each in runner.profile_limits] for runner in told] == [
        ["default"],
        ["default"],
        [],
    ]
    assert not Runners.descriptions[0].profile_limits, "a hello is kept as it came"


@pytest.mark.parametrize("named", ["numpy", "Default"])
def test_a_refused_profile_is_told_with_what_there_is(named: str) -> None:
    asked = request("x")
    asked.profile = named
    with pytest.raises(InvalidArgument) as refused:
        validate.checked(asked)
    assert refused.value.violations == [("profile", f"unknown profile {named!r}; the runners have 'default'")]


def test_only_folders_that_nobody_holds_are_cleaned(tmp_path: Path) -> None:
    import fcntl

    for name in ("held", "left"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    with (tmp_path / "held" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folders.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["held"]
