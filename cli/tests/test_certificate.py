"""`codealign certificate` with a fake kubectl, and commands that use the certificate over real TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1 import coordinator_pb2_grpc as rpc
from codealign.cli.certificate import FILES
from codealign.cli.main import app
from codealign.common.clients import ClientTls
from tests.pki import Authority

KUBECTL = """#!/usr/bin/env python3
import json, os, sys

arguments = sys.argv[1:]
print(json.dumps(arguments), file=open(os.environ["KUBECTL_CALLS"], "a"))
cluster = json.load(open(os.environ["KUBECTL_CLUSTER"]))


def value(option):
    return arguments[arguments.index(option) + 1]


assert arguments[arguments.index("get") + 1] == "secret", arguments
if cluster.get("error"):
    sys.exit(cluster["error"])
secrets = [each for each in cluster["secrets"] if value("--namespace") == each["metadata"]["namespace"]]
if "--selector" in arguments:
    if cluster.get("forbid") in ("list", "all"):
        sys.exit('Error from server (Forbidden): secrets is forbidden: User "me" cannot list resource "secrets"')
    wanted = dict(each.split("=") for each in value("--selector").split(","))
    found = [each for each in secrets if wanted.items() <= each["metadata"]["labels"].items()]
    if value("--output") == "json":
        print(json.dumps({"kind": "List", "items": found}))
    else:
        assert value("--output") == r"jsonpath={.items[*].metadata.labels.app\\.kubernetes\\.io/instance}"
        print(" ".join(each["metadata"]["labels"]["app.kubernetes.io/instance"] for each in found), end="")
else:
    name = arguments[arguments.index("secret") + 1]
    if cluster.get("forbid") == "all":
        sys.exit(f'Error from server (Forbidden): secrets "{name}" is forbidden: User "me" cannot get resource')
    found = [each for each in secrets if each["metadata"]["name"] == name]
    if not found:
        sys.exit(f'Error from server (NotFound): secrets "{name}" not found')
    print(json.dumps(found[0]))
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("pki"))


def secret(tls: ClientTls, release: str = "demo", full: str = "demo-codealign") -> dict[str, Any]:
    paths = (tls.ca_file, tls.cert_file, tls.key_file)
    data = {name: base64.b64encode(path.read_bytes()).decode() for name, path in zip(FILES, paths, strict=True) if path}
    labels = {"instance": release, "component": "client", "part-of": "codealign"}
    return {
        "kind": "Secret",
        "metadata": {
            "name": f"{full}-client-tls",
            "namespace": "lab",
            "labels": {f"app.kubernetes.io/{key}": value for key, value in labels.items()},
        },
        "data": data,
    }


Cluster = Callable[..., None]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A factory that sets the Secrets that the fake kubectl returns: cluster(secret, ...)."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBECTL_CLUSTER", str(tmp_path / "cluster.json"))
    monkeypatch.setenv("KUBECTL_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("CODEALIGN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CODEALIGN_CERTIFICATE", raising=False)

    def contain(*secrets: dict[str, Any], **more: str) -> None:
        (tmp_path / "cluster.json").write_text(json.dumps({"secrets": secrets, **more}))

    return contain


def codealign(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def fetch(folder: Path, *more: str, release: str = "demo") -> Result:
    return codealign("certificate", "--namespace", "lab", "--release", release, "--into", folder, *more)


def failure(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert result.output.startswith("codealign: ")
    return result.output


class _Coordinator(rpc.CoordinatorServiceServicer):
    def ListRuns(self, request: api.ListRunsRequest, context: Any) -> api.ListRunsResponse:
        caller = context.auth_context()["x509_common_name"][0].decode()
        return api.ListRunsResponse(runs=[api.RunStatus(id="a" * 64, message=f"by:{caller}")])


@pytest.fixture
def coordinator(authority: Authority) -> Iterator[str]:
    """A coordinator with mutual TLS, in a separate thread."""
    address: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server()
        rpc.add_CoordinatorServiceServicer_to_server(_Coordinator(), server)  # type: ignore[abstract]  # one call is enough
        own = authority.sign("coordinator")
        assert own.cert_file
        assert own.key_file
        pair = (own.key_file.read_bytes(), own.cert_file.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], authority.certificate.read_bytes(), True)
        address.append(f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}")
        await server.start()
        started.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(20)
    yield address[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def test_one_command_fetches_what_the_next_ones_are_let_in_with(
    cluster: Cluster, authority: Authority, coordinator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster(secret(authority.sign("client")), secret(authority.sign("other"), "other", "other-codealign"))
    folder = tmp_path / "deep" / "own folder"
    result = fetch(folder, "--context", "there")
    assert result.exit_code == 0, result.output
    assert f"export CODEALIGN_CERTIFICATE='{folder}'" in result.output
    forward = "kubectl --context there --namespace lab port-forward service/demo-codealign-trainer 7450:7400 &"
    assert forward in result.output
    assert "export CODEALIGN_TRAINING_ADDRESS=localhost:7450" in result.output
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == dict.fromkeys(FILES, 0o600)
    assert [path.name for path in folder.parent.iterdir()] == ["own folder"]

    listed = codealign("ls", "--coordinator", coordinator, "--certificate", folder)
    assert "by:client" in listed.output
    monkeypatch.setenv("CODEALIGN_CERTIFICATE", str(folder))
    monkeypatch.setenv("CODEALIGN_COORDINATOR_ADDRESS", coordinator)
    assert "by:client" in codealign("ls").output
    other = authority.sign("trainer")
    instead = ("--tls-cert", str(other.cert_file), "--tls-key", str(other.key_file))
    assert "by:trainer" in codealign("ls", *instead).output


def test_it_goes_to_the_home_folder_where_no_other_is_named_and_a_second_one_replaces_it(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    for _ in range(2):
        made = authority.sign("client")
        cluster(secret(made))
        assert codealign("certificate", "-n", "lab", "--release", "demo").exit_code == 0
        assert made.cert_file
        folder = tmp_path / "home" / "certificates" / "demo"
        assert (folder / "tls.crt").read_bytes() == made.cert_file.read_bytes()
        assert [path.name for path in folder.parent.iterdir()] == ["demo"]


def test_a_folder_with_something_else_in_it_stays_as_it_is(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    cluster(secret(authority.sign("client")))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("x")
    assert "contains other files (thesis.txt): pass an empty or new directory" in failure(fetch(tmp_path / "work"))
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["thesis.txt"]


def test_what_is_not_whole_is_not_written(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    good = secret(authority.sign("client"))
    mixed = good | {"data": good["data"] | {"tls.key": secret(authority.sign("other"))["data"]["tls.key"]}}
    for wrong, told in (
        (mixed, "does not match its certificate: it belongs to another certificate"),
        (good | {"data": good["data"] | {"tls.crt": "bm9uZQ=="}}, "cannot read the certificate in the Secret"),
        (good | {"data": good["data"] | {"tls.crt": "%"}}, "cannot read the certificate in the Secret"),
        (secret(authority.sign("client", days=-1)), "tls.generated.rotation"),
    ):
        cluster(wrong)
        assert told in failure(fetch(tmp_path / "folder"))
        assert not [path.name for path in tmp_path.iterdir() if "folder" in path.name]


def test_there_is_no_such_release(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    cluster(secret(authority.sign("client"), "b"), secret(authority.sign("client"), "a"))
    told = failure(fetch(tmp_path / "folder"))
    assert "no release 'demo' with a client certificate in namespace lab; found: a, b" in told
    cluster()
    assert "pass another --namespace (`helm list --all-namespaces` shows the releases)" in failure(
        fetch(tmp_path / "folder")
    )
    assert "'a,b=c' is not a valid release name" in failure(fetch(tmp_path / "folder", release="a,b=c"))


def test_who_may_get_the_secret_alone_gets_it_and_who_may_not_is_told_what_to_ask_for(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    cluster(secret(authority.sign("client")), forbid="list")
    assert fetch(tmp_path / "folder").exit_code == 0
    assert "no release 'else'" in failure(fetch(tmp_path / "folder", release="else"))
    cluster(secret(authority.sign("client")), forbid="all")
    told = failure(fetch(tmp_path / "folder"))
    assert "ask for permission to get the Secret demo-codealign-client-tls" in told


def test_what_kubectl_says_is_passed_on(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(error="Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout")
    assert "kubectl: Unable to connect to the server" in failure(fetch(tmp_path / "folder"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "kubectl is not on PATH: install it, or copy" in failure(fetch(tmp_path / "folder"))


def test_an_expired_certificate_is_named_with_its_date_and_what_to_do(
    cluster: Cluster, authority: Authority, coordinator: str, tmp_path: Path
) -> None:
    cluster(secret(authority.sign("client")))
    folder = tmp_path / "folder"
    fetch(folder)
    old = authority.sign("client", days=-1)
    assert old.cert_file
    assert old.key_file
    (folder / "tls.crt").write_bytes(old.cert_file.read_bytes())
    told = failure(codealign("ls", "--coordinator", coordinator, "--certificate", folder))
    assert f"the certificate in {folder} expired on 20" in told
    assert "run `codealign certificate` again with" in told
    # Services on this machine use plaintext: the certificate is not read.
    assert "no coordinator and no dataset service is up" in codealign("watch", "--certificate", folder).output
    (folder / "tls.crt").write_bytes((authority.folder / "coordinator.crt").read_bytes())
    told = failure(codealign("ls", "--coordinator", coordinator, "--certificate", folder))
    assert "it belongs to another certificate" in told
    told = failure(codealign("ls", "--coordinator", coordinator, "--certificate", tmp_path / "none"))
    assert f"no certificate in {tmp_path}/none: `codealign certificate --into {tmp_path}/none` fetches one" in told
