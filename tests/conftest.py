"""Test order: files with slow tests first.

Workers take whole files (`--dist loadfile`). A file of many minutes that comes last leaves every other worker idle.
"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
