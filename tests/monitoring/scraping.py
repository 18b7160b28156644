"""A Prometheus that scrapes the services of a home directory, with the project's rules."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = str(ROOT / "charts/codealign/files/rules/*.yaml")
INTERVAL = 2
"""Seconds between scrapes."""
_VARIABLES = {"$namespace": ".*", "$__rate_interval": "30s", "$__range": "1h"}
_START_SECONDS = 60


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str
    started: float = field(default_factory=time.time)

    def ask(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer of the HTTP API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=60) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        """Return every value that a panel's query had since the start, as Grafana would ask."""
        for variable, value in _VARIABLES.items():
            expression = expression.replace(variable, value)
        result = self.ask("query_range", query=expression, start=self.started, end=time.time(), step=INTERVAL)
        return [number for line in result["result"] for _, text in line["values"] if (number := float(text)) == number]

    def names(self) -> set[str]:
        """Return the names of all series."""
        return set(self.ask("label/__name__/values"))


@contextlib.contextmanager
def scraping(program: str, folder: Path, home: Path, rules: str = RULES) -> Iterator[Prometheus]:
    """Run Prometheus in this context.

    Args:
        program: Path of the program.
        folder: Empty folder for its files.
        home: Home directory of the services; they may start later.
        rules: Pattern of the rule files.
    """
    targets = home / "run" / "prometheus"
    targets.mkdir(parents=True, exist_ok=True)
    discovery = {"files": [f"{targets}/*.json"], "refresh_interval": "1s"}
    configuration = {
        "global": {"scrape_interval": f"{INTERVAL}s", "scrape_timeout": f"{INTERVAL}s", "evaluation_interval": "5s"},
        "rule_files": [rules],
        "scrape_configs": [{"job_name": "codealign", "file_sd_configs": [discovery]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        *(program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}", folder / "log")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=5):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
