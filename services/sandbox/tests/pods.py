"""A runner pod without Kubernetes: its server inside real gVisor, on this machine's loopback."""

from __future__ import annotations

import json
import secrets
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from codealign.runner.configuration import Configuration
from codealign.sandbox import bundle, gvisor, rootfs

ROOT = Path(__file__).parents[3]
_SOURCES = ("protos/src", "services/common/src")
_USER = 65532


class Pod:
    """One runner, started as in a cluster: no capability, no root, a server to which gateways connect."""

    def __init__(self, folder: Path, cache: Path, port: int = 0, tls: Path | None = None, **settings: str) -> None:
        self.folder = folder
        folder.mkdir()
        self.name = f"pod-{secrets.token_hex(4)}"
        self.log = folder / "log"
        self._write(cache, {"port": str(port), **settings}, tls)
        flags = [f"--root={folder / 'state'}", "--platform=ptrace", "--network=host", "--ignore-cgroups"]
        self._runsc = [str(gvisor.locate(cache).path), *flags, "--overlay2=none"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self._runsc, "run", f"--bundle={folder}", self.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            # gVisor writes to a file at its own offset, so use a pipe.
            self._copy = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=log)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _write(self, cache: Path, settings: dict[str, str], tls: Path | None) -> None:
        configuration = Configuration(self.name, 1, "grpc")
        bundle.write(self.folder, rootfs.prepare(cache), rootfs.interpreter(), bundle.supervisor(configuration))
        path = self.folder / "config.json"
        config: dict[str, Any] = json.loads(path.read_text())
        mounts = [(ROOT / source, f"/var/tmp/{index}") for index, source in enumerate(_SOURCES)]
        mounts.append((Path(sysconfig.get_path("purelib")), "/var/tmp/packages"))
        if tls is not None:
            mounts.append((tls, "/var/tmp/tls"))
        config["mounts"].append({"destination": "/var/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]})
        for source, target in mounts:
            bind = {"destination": target, "source": str(source), "type": "bind", "options": ["rbind", "ro"]}
            config["mounts"].append(bind)
        process = config["process"]
        process["user"] = {"uid": _USER, "gid": _USER}
        process["capabilities"] = {kind: [] for kind in process["capabilities"]}
        process["args"] = [process["args"][0], "-S", "-s", "-P", "-m", "codealign.runner.pod.main"]
        environment = dict(variable.split("=", 1) for variable in process["env"])
        # The runner itself is already in the root, with its native part.
        targets = [str(rootfs.SITE), *(target for _, target in mounts if target != "/var/tmp/tls")]
        environment["PYTHONPATH"] = ":".join(targets)
        environment["CODEALIGN_RUNNER_NAME"] = self.name
        environment.update({f"CODEALIGN_RUNNER_{name.upper()}": value for name, value in settings.items()})
        process["env"] = [f"{name}={value}" for name, value in environment.items()]
        namespaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [each for each in namespaces if each["type"] != "network"]
        path.write_text(json.dumps(config))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the logged events with this name."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    @property
    def port(self) -> int:
        deadline = time.monotonic() + 60
        while not (listening := self.events("listening")):
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"the pod did not come up:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
        return int(listening[0]["port"])

    def terminate(self) -> None:
        """Send SIGTERM to the first process, as the kubelet does."""
        subprocess.run([*self._runsc, "kill", self.name, "TERM"], check=True, capture_output=True)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        self._copy.wait(30)


def certificates(folder: Path, name: str) -> Path:
    """Create a CA and certificates: the runner's with the pool's name, the gateway's and a person's."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    folder.mkdir()
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    (folder / "san").write_text(f"subjectAltName=DNS:{name}")
    sign = ("x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "san")
    for owner, called in (("runner", "runners"), ("gateway", "sandbox"), ("client", "client")):
        openssl(*new, "-keyout", f"{owner}.key", "-out", f"{owner}.csr", "-subj", f"/CN={called}")
        openssl(*sign, "-in", f"{owner}.csr", "-out", f"{owner}.pem")
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder
