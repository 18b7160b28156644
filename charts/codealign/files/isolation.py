"""`helm test`: check that the sandbox of this release contains hostile programs.

Gets the runners' isolation checks from the gateway, and executes programs that try to escape, to fake results and to
exceed their limits. Exits with 1 if one of them succeeds.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import grpc

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub

ADDRESS = os.environ["SANDBOX_ADDRESS"]
SECONDS = float(os.environ["TEST_SECONDS"])
TLS = Path(os.environ.get("TLS_FOLDER", ""))
# The cloud metadata service, the internet, and addresses from the values.
CLOSED = ["169.254.169.254:80", "1.1.1.1:443", *os.environ["CLOSED_ADDRESSES"].split()]

NETWORK = f"""
import socket

reached = []
for address in {CLOSED!r}:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        reached.append(address)
    except OSError:
        pass
try:
    reached.append(socket.gethostbyname("kubernetes.default.svc"))
except OSError:
    pass
"""
SECRETS = """
import glob, os

found = [name for name in os.environ if "KUBERNETES" in name or "CODEALIGN" in name]
for pattern in ("/etc/codealign/tls/*", "/var/run/secrets/**", "/run/secrets/**", "/run/containerd/*"):
    found += [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
"""
PROGRAMS = [
    ("an honest program passes", "x = 1", "assert x == 1", "PASSED"),
    ("exiting before the tests does not pass", "import sys; sys.exit(0)", "assert False", "EXITED_EARLY"),
    ("no connections, no name resolution", NETWORK, "assert not reached, reached", "PASSED"),
    ("no credentials are visible", SECRETS, "assert not found, found", "PASSED"),
    ("a fork bomb is contained", "import os\nwhile True: os.fork()", "assert True", "PROCESS_LIMIT"),
    ("memory is limited", "x = bytearray(1 << 40)", "assert True", "OUT_OF_MEMORY"),
    ("time is limited", "while True: pass", "assert True", "TIMED_OUT"),
]


def _channel() -> grpc.Channel:
    options = [
        ("grpc.enable_http_proxy", 0),  # the gateway is in this cluster
        ("grpc.keepalive_time_ms", 10_000),  # its node may disappear silently
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if not TLS.name:
        return grpc.insecure_channel(ADDRESS, options)
    authority, key, certificate = ((TLS / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.secure_channel(ADDRESS, grpc.ssl_channel_credentials(authority, key, certificate), options)


def _execute(sandbox: SandboxServiceStub, code: str, tests: str, deadline: float) -> pb.Result:
    request = pb.ExecuteRequest(program=pb.Program(code=code, tests=tests), limits=pb.Limits(wall_seconds=8))
    while True:
        try:
            answer: pb.ExecuteResponse = sandbox.Execute(request, timeout=max(1.0, deadline - time.monotonic()))
        except grpc.RpcError as error:
            # The gateway, or the first runner, may still be starting.
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return answer.result


def _unproved(runner: pb.Runner) -> list[str]:
    faults = [f"{check.name}: {check.evidence}" for check in runner.isolation_checks if not check.passed]
    if runner.isolation != pb.ISOLATION_GVISOR:
        faults.append(f"reports {pb.Isolation.Name(runner.isolation)}")
    return faults if runner.isolation_checks else [*faults, "reports no isolation checks"]


def main() -> int:
    """Run all checks and print the results; return 1 if any failed."""
    deadline = time.monotonic() + SECONDS
    failures = 0
    with _channel() as channel:
        sandbox = SandboxServiceStub(channel)
        for what, code, tests, expected in PROGRAMS:
            result = _execute(sandbox, code, tests, deadline)
            verdict = pb.Verdict.Name(result.verdict).removeprefix("VERDICT_")
            passed = verdict == expected and result.isolation == pb.ISOLATION_GVISOR
            failures += not passed
            print(f"{'ok  ' if passed else 'FAIL'} {what}: {verdict} {result.detail}", flush=True)
        runners = sandbox.GetRunner(pb.GetRunnerRequest(), timeout=30).runners
        # Starting runners have no results yet.
        told = [runner for runner in runners if runner.state != pb.RUNNER_STATE_STARTING]
        for runner in told:
            faults = _unproved(runner)
            failures += bool(faults)
            seen = "; ".join(faults) or f"{len(runner.isolation_checks)} isolation checks passed"
            print(f"{'FAIL' if faults else 'ok  '} runner {runner.name}: {seen}")
    if not told:
        print("FAIL no runner has proved its isolation")
    return 1 if failures or not told else 0


if __name__ == "__main__":
    sys.exit(main())
