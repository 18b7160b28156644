"""Storage that pods reach by URL: a folder, and an S3 server if available (versitygw, with s3fs installed)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.ports import free_port

BUCKET = "lab"
_KEYS = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab-secret", "AWS_DEFAULT_REGION": "us-east-1"}


def served(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of an empty folder.

    Args:
        kind: file or s3.
        folder: Local folder that stores the content.
        monkeypatch: Sets the variables of S3 clients.
    """
    if kind == "file":
        yield (folder / "artifacts").as_uri()
        return
    gateway = shutil.which("versitygw")
    if gateway is None or importlib.util.find_spec("s3fs") is None:
        pytest.skip("no S3: versitygw has to be on PATH, and s3fs installed")
    (folder / "buckets" / BUCKET).mkdir(parents=True)
    (folder / "metadata").mkdir()
    port = free_port()
    keys = {"ROOT_ACCESS_KEY": _KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": _KEYS["AWS_SECRET_ACCESS_KEY"]}
    command = [gateway, "--port", f"127.0.0.1:{port}", "posix"]
    command += ["--sidecar", str(folder / "metadata"), str(folder / "buckets")]
    with (folder / "gateway.txt").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **keys})
    for name, value in {**_KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # drop clients that know another endpoint
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"s3://{BUCKET}/artifacts"
    finally:
        process.terminate()
        process.wait()
