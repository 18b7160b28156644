"""The hostile corpus on every kind of runner, several times each.

    python -m tests.hostile.matrix [arguments of pytest]

A kind that this machine cannot run is named, with what its gateway says. Ends with 1 when anything that ran failed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from services.sandbox.tests.conftest import Gateway

ROUNDS = 3
_START_SECONDS = 180.0
_FAILED = ("FAILED ", "ERROR ")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A backend, and gVisor's platform if the backend has a choice."""

    backend: str
    platform: str = ""

    def __str__(self) -> str:
        return f"{self.backend} {self.platform}".strip()

    @property
    def settings(self) -> dict[str, str]:
        return {"backend": self.backend} | ({"platform": self.platform} if self.platform else {})


KINDS = (Kind("runsc", "systrap"), Kind("runsc", "systrap-no-fast-path"), Kind("runsc", "ptrace"), Kind("docker"))


def _last_reason(log: str) -> str:
    """Return the gateway's last reason for not being ready."""
    found = ""
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            found = line.strip() or found
            continue
        if isinstance(entry, dict):
            found = entry.get("error") or entry.get("reason") or found
    return found or "it said nothing"


def _other_kind(gateway: Gateway, kind: Kind) -> str:
    (runner,) = gateway.connect().GetRunner(pb.GetRunnerRequest(), timeout=10).runners
    same = all(getattr(runner, name) == value for name, value in kind.settings.items())
    return "" if same else f"its gateway started {runner.backend} on {runner.platform}"


def why_not(kind: Kind) -> str:
    """Return why runners of a kind do not start on this machine, or "" if they do."""
    with tempfile.TemporaryDirectory() as folder:
        gateway = Gateway(Path(folder), runners="1", **kind.settings)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while time.monotonic() < deadline and gateway.process.poll() is None:
                said = gateway.log.read_text()
                if '"runner_ready"' in said:
                    return _other_kind(gateway, kind)
                if '"runner_did_not_start"' in said or '"isolation_not_proved"' in said:
                    break
                time.sleep(0.1)
            return _last_reason(gateway.log.read_text())
        finally:
            gateway.stop()


def _round(kind: Kind, arguments: list[str]) -> bool:
    """Run the corpus once; return True if everything passed."""
    asked = {**kind.settings, "group": "1"}
    environment = {f"CODEALIGN_HOSTILE_{name.upper()}": value for name, value in asked.items()}
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-q", "-p", "no:cacheprovider", *arguments]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    lines = ended.stdout.splitlines()
    print(
        "\n".join(["  " + line for line in lines if line.startswith(_FAILED)] + ["  " + "".join(lines[-1:])]),
        flush=True,
    )
    if ended.returncode > 1:
        print(ended.stdout[-3000:] + ended.stderr[-3000:], flush=True)
    return ended.returncode == 0


def main(arguments: list[str]) -> int:
    """Print what ran, what did not, and why."""
    summary = []
    for kind in KINDS:
        reason = why_not(kind)
        if reason:
            summary.append(f"{kind}: NOT RUN: {reason}")
            print(summary[-1], flush=True)
            continue
        passed = 0
        for number in range(ROUNDS):
            print(f"{kind}, round {number + 1} of {ROUNDS}", flush=True)
            passed += _round(kind, arguments)
        summary.append(f"{kind}: {passed} of {ROUNDS} rounds passed")
    print("\n" + "\n".join(summary))
    ran = [line for line in summary if "NOT RUN" not in line]
    return 0 if ran and all(line.endswith(f"{ROUNDS} of {ROUNDS} rounds passed") for line in ran) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
