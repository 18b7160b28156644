"""Prometheus' programs. Debian and Ubuntu have both in the package `prometheus`."""

from __future__ import annotations

import os
import shutil

import pytest


def prometheus_program(name: str) -> str:
    """Return the path of `promtool` or `prometheus`. Skip the test if it is missing; in CI, fail it."""
    if found := shutil.which(name):
        return found
    told = f"no {name} on PATH: install the package `prometheus`"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)
